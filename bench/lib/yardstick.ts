/**
 * The yardstick: bare Fastify that parses a JSON body and answers 350 bytes of JSON. Its throughput in the same run on
 * the same core shows the cost of HTTP itself. Runs as a separate process and prints its address.
 */
import Fastify from 'fastify'

const ANSWER = {
  one_time_keys: {
    '@user:bench.example': {
      DEVICE000000: {
        'signed_curve25519:AAAAAAAAAAA': {
          key: 'k'.repeat(43),
          signatures: { '@user:bench.example': { 'ed25519:DEVICE000000': 's'.repeat(86) } },
        },
      },
    },
  },
  failures: {},
}

const app = Fastify()
app.post('/', async () => ANSWER)
app.get('/', async () => ANSWER)
console.log(await app.listen({ port: 0, host: '127.0.0.1' }))
