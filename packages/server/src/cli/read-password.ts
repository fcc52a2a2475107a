/** A password from the terminal, asked for twice and not shown, or from standard input. */
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { UsageError } from './describe-failure.ts'

/** @throws {UsageError} when there is no terminal to ask at, or the two differ. */
export async function askPassword(userName: string): Promise<string> {
  if (!process.stdin.isTTY)
    throw new UsageError('There is no terminal to ask for the password at: use --password-stdin.')
  const password = await ask(`Password for ${userName}: `)
  if ((await ask('Again: ')) !== password)
    throw new UsageError('The two passwords differ; no account was made.')
  return password
}

/** One line editor per question, whose output goes nowhere. */
function ask(question: string): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const editor = createInterface({ input: process.stdin, output: nowhere, terminal: true, historySize: 0 })
  process.stderr.write(question)
  return new Promise((resolve, reject) => {
    editor.once('line', resolve)
    editor.once('close', () => reject(new UsageError('No password was given; no account was made.')))
  }).finally(() => {
    editor.close()
    process.stderr.write('\n')
  }) as Promise<string>
}

/** All of standard input, without the line end that `echo` and editors leave. */
export async function readPassword(): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(Buffer.from(chunk as Uint8Array))
  const password = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '')
  if (password === '') throw new UsageError('Standard input held no password.')
  if (/[\r\n]/.test(password))
    throw new UsageError('Standard input held more than one line; expected the password alone.')
  return password
}
