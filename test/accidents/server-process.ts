/** A server that can be killed: claims as often as it is told, and ends when the program that started it is gone. */
import { openServer, type ServerOptions } from './server.ts'

const server = await openServer(JSON.parse(process.argv[2] ?? '') as ServerOptions)
process.on('message', (count) => {
  void server.claim(Number(count)).then((claimed) => process.send?.(claimed))
})
process.once('disconnect', () => process.exit())
process.send?.('ready')
