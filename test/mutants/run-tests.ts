/** Runs the test files of the arguments in this process; ends with code 1 and the test's name at the first failure. */
import { run } from 'node:test'

const stream = run({ files: process.argv.slice(2), isolation: 'none' })
stream.on('test:fail', ({ name }) => {
  process.stdout.write(name)
  process.exit(1)
})
stream.on('end', () => process.exit(0))
stream.resume()
