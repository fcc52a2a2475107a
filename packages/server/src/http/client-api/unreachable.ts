/** The `failures` member of claims and queries for users of other servers, while there is no federation. */

export function unreachable(servers: Iterable<string>): Record<string, object> {
  const failure = { status: 503, message: 'This server does not federate yet.' }
  return Object.fromEntries([...servers].map((server) => [server, failure]))
}
