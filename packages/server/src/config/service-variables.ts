/**
 * Variables that a container platform sets, not an operator. For a Service named `latchkey`, Kubernetes gives every pod
 * of its namespace LATCHKEY_SERVICE_HOST, LATCHKEY_PORT=tcp://10.0.0.1:8008 and the like; for one named `latchkey-db`,
 * LATCHKEY_DB_SERVICE_HOST (Kubernetes, "Service", environment variables; Docker's links before it). They are passed over.
 */

const NAME =
  /^LATCHKEY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/
/** LATCHKEY_PORT is a setting too: the form of the value tells the two apart. */
const PORT_NAME = /^LATCHKEY_([A-Z0-9_]+_)?PORT$/
const PORT_URL = /^(tcp|udp|sctp):\/\/[0-9a-f.:[\]]+:\d+$/

export function withoutServiceVariables(
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries(environment).filter(
      ([name, value]) => !NAME.test(name) && !(PORT_NAME.test(name) && PORT_URL.test(value ?? '')),
    ),
  )
}
