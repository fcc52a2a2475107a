/**
 * A process that works on a file store until it is killed, and prints a line for each completed step.
 *
 *     node write-store.ts PATH write     repeated writes, each a known change of the content (content-after.ts)
 *     node write-store.ts PATH create    new stores at PATH-0, PATH-1, ...
 *     node write-store.ts PATH hold      takes the lock and keeps it
 *     node write-store.ts PATH count N   adds one, N times, under the lock; then ends
 */
import { fileStore } from '../../../src/store/sqlite-file.ts'
import { changesOf } from './content-after.ts'

const [path = '', task, times] = process.argv.slice(2)
const store = fileStore(path)

function say(line: string | number): void {
  process.stdout.write(`${line}\n`)
}

if (task === 'write') {
  for (let generation = await store.generation(); ; ) {
    generation = await store.write(generation, changesOf(generation + 1))
    say(generation)
  }
} else if (task === 'create') {
  for (let i = 0; ; i++) {
    const created = fileStore(`${path}-${i}`)
    await created.generation()
    await created.close()
    say(i)
  }
} else if (task === 'hold') {
  await store.exclusively(() => {
    say('held')
    // Ends only when killed.
    setInterval(() => undefined, 60_000)
    return new Promise(() => undefined)
  })
} else {
  for (let i = 0; i < Number(times); i++) {
    await store.exclusively(async () => {
      const { generation, records } = await store.read()
      const next = Number(records.get('count') ?? 0) + 1
      await store.write(generation, new Map([['count', String(next)]]))
    })
  }
  await store.close()
}
