/** A server that can be killed: claims as often as a message says, and ends together with the program. */
import { openServer, type ServerOptions } from './server.ts'

const server = await openServer(JSON.parse(process.argv[2] ?? '') as ServerOptions)
process.on('message', (count) => {
  void server.claim(Number(count)).then((claimed) => process.send?.(claimed))
})
process.once('disconnect', () => process.exit())
process.send?.('ready')
