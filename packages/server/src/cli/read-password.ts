/** Reads a password: two hidden prompts on the terminal, or standard input. */
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { UsageError } from './describe-failure.ts'

/** @throws {UsageError} if there is no terminal, or the two passwords differ. */
export async function askPassword(userName: string): Promise<string> {
  if (!process.stdin.isTTY) throw new UsageError('No terminal for the password prompt: use --password-stdin.')
  const password = await ask(`Password for ${userName}: `)
  if ((await ask('Again: ')) !== password)
    throw new UsageError('The two passwords differ; nothing was changed.')
  return password
}

/** A line editor per prompt, with its output discarded so that the password is not shown. */
function ask(question: string): Promise<string> {
  const discard = new Writable({ write: (_chunk, _encoding, done) => done() })
  const editor = createInterface({ input: process.stdin, output: discard, terminal: true, historySize: 0 })
  process.stderr.write(question)
  return new Promise((resolve, reject) => {
    editor.once('line', resolve)
    editor.once('close', () => reject(new UsageError('No password was entered; nothing was changed.')))
  }).finally(() => {
    editor.close()
    process.stderr.write('\n')
  }) as Promise<string>
}

/** Reads all of standard input and removes the final newline that `echo` and editors add. */
export async function readPassword(): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(Buffer.from(chunk as Uint8Array))
  const password = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '')
  if (password === '') throw new UsageError('Standard input was empty; expected a password.')
  if (/[\r\n]/.test(password))
    throw new UsageError('Standard input had more than one line; expected only the password.')
  return password
}
