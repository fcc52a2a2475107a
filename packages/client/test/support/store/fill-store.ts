/** A process that writes to a file store until the disk is full, and prints the result as JSON. */
import { fileStore } from '../../../src/store/sqlite-file.ts'
import { StoreError } from '../../../src/store/store.ts'

const store = fileStore(process.argv[2] ?? '')
let written = 0
try {
  for (;;) written = await store.write(written, new Map([[`record${written}`, 'x'.repeat(5000)]]))
} catch (error) {
  const { reason, message } =
    error instanceof StoreError ? error : { reason: 'other', message: String(error) }
  const content = (await store.read()).records.size
  process.stdout.write(JSON.stringify({ written, reason, message, content }))
}
