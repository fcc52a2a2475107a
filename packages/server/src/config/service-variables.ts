/**
 * Ignores variables set by a container platform. For a Service named `latchkey`, Kubernetes sets LATCHKEY_SERVICE_HOST,
 * LATCHKEY_PORT=tcp://10.0.0.1:8008 and others in every pod of its namespace; for one named `latchkey-db`,
 * LATCHKEY_DB_SERVICE_HOST (Kubernetes, "Service", environment variables; Docker's legacy links are similar).
 */

const NAME =
  /^LATCHKEY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/
/** LATCHKEY_PORT is also a setting: only the format of the value distinguishes the two. */
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
