/**
 * `npm run test:mutants`: runs the tests of the domain once as they are, then once for each mutant, which must fail.
 * Each mutant is a process of its own: first the tests next to its file, then all tests of the domain with a fixed
 * seed.
 */
import { spawn } from 'node:child_process'
import { readFileSync, globSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { type Mutant, MUTANTS, SURVIVORS } from './mutants.ts'
import { mutate } from './mutate.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SOURCE = 'packages/server/src'
/** A mutant that makes a test wait or loop without end counts as noticed. */
const TIMEOUT_MS = 60_000
/** Histories per policy. */
const RUNS = '40'

const DOMAIN_TESTS = [
  ...globSync(`${SOURCE}/{pool,fence,accounts,devices,messages,sync,lib}/*.test.ts`, { cwd: ROOT }).sort(),
  'packages/server/test/store-contract/memory.test.ts',
]

/** The test that failed; undefined when all passed. */
type Failure = string | undefined

function runTests(files: readonly string[], mutant?: Mutant): Promise<Failure> {
  const test = spawn(
    process.execPath,
    ['--no-warnings', '--import', './test/mutants/load-mutant.ts', 'test/mutants/run-tests.ts', ...files],
    {
      cwd: ROOT,
      env: {
        ...process.env,
        PROPERTY_RUNS: RUNS,
        PROPERTY_SEED: '1',
        ...(mutant && { MUTANT: JSON.stringify(mutant) }),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    },
  )
  const output: string[] = []
  test.stdout.setEncoding('utf8').on('data', (text: string) => output.push(text))
  return new Promise((resolve, reject) => {
    test.on('error', reject)
    test.on('close', (code) => resolve(code === 0 ? undefined : output.join('') || `ended with ${code}`))
  })
}

/** The tests next to a mutant's file first, because most mutants fail there. */
async function failureOf(mutant: Mutant): Promise<Failure> {
  const sibling = `${SOURCE}/${mutant.file.replace(/\.ts$/, '.test.ts')}`
  const near = DOMAIN_TESTS.includes(sibling) ? await runTests([sibling], mutant) : undefined
  return near ?? runTests(DOMAIN_TESTS, mutant)
}

/** @throws {Error} for a mutant whose line is not in its file exactly once, or that does not parse. */
function requireValid(mutant: Mutant): void {
  const source = readFileSync(`${ROOT}/${SOURCE}/${mutant.file}`, 'utf8')
  stripTypeScriptTypes(mutate(source, mutant))
}

function isExpectedSurvivor({ file, line }: Mutant): boolean {
  return SURVIVORS.some((survivor) => survivor.file === file && survivor.line === line)
}

async function runAll(mutants: readonly Mutant[]): Promise<boolean> {
  let next = 0
  let ok = true
  const work = async (): Promise<void> => {
    for (let mutant = mutants[next++]; mutant !== undefined; mutant = mutants[next++]) {
      const failure = await failureOf(mutant)
      const expected = isExpectedSurvivor(mutant)
      if ((failure === undefined) !== expected) ok = false
      const result =
        failure === undefined ? (expected ? 'survivor' : 'SURVIVED') : expected ? 'NOTICED' : 'noticed'
      print(`${result.padEnd(8)}  ${mutant.file}: ${mutant.line}`)
      print(`${''.padEnd(8)}  ${failure === undefined ? `-> ${mutant.replacement}` : `by: ${failure}`}`)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  return ok
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

for (const mutant of MUTANTS) requireValid(mutant)
const broken = await runTests(DOMAIN_TESTS)
if (broken !== undefined) throw new Error(`without a mutant this test fails: ${broken}`)
const started = performance.now()
const ok = await runAll(MUTANTS)
const seconds = Math.round((performance.now() - started) / 1000)
print(`${MUTANTS.length} mutants, ${SURVIVORS.length} expected survivors, ${seconds} s`)
if (!ok) {
  print(
    'SURVIVED: add a test, or an entry of SURVIVORS with its reason. NOTICED: remove its entry of SURVIVORS.',
  )
  process.exitCode = 1
}
