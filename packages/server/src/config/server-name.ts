/**
 * The grammar of server names: a DNS name, an IPv4 address or an IPv6 address in brackets, and optionally a port.
 * Source: Matrix specification, appendices, "Server name".
 */
import { isIPv6 } from 'node:net'

/** Leaves space for a localpart within the 255 bytes of a user ID. */
const MAX_LENGTH = 230

export function isServerName(text: string): boolean {
  if (text.length > MAX_LENGTH) return false
  const [, ipv6, dnsName, port] = /^(?:\[([^\]]*)\]|([0-9A-Za-z.-]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  if (port !== undefined && Number(port) > 65_535) return false
  return ipv6 === undefined ? dnsName !== undefined : isIPv6(ipv6) && !ipv6.includes('%')
}
