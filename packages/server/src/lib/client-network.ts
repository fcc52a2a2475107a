/**
 * The network that limits per address apply to. An IPv6 customer has at least a /64 and could use a new address for
 * every attempt. An IPv4-mapped IPv6 address (as on sockets listening on `::`) is its IPv4 address.
 */
import { isIPv6 } from 'node:net'

/**
 * @example networkOf('2001:db8:0:7::1') // '2001:db8:0:7::/64'
 * @example networkOf('::ffff:192.0.2.1') // '192.0.2.1'
 */
export function networkOf(address: string): string {
  const [text = ''] = address.split('%')
  if (!isIPv6(text)) return text
  const groups = groupsOf(text)
  const isMappedIPv4 = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
  if (isMappedIPv4) {
    return groups
      .slice(6)
      .flatMap((group) => [group >> 8, group & 0xff])
      .join('.')
  }
  return `${groups
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')}::/64`
}

/** The eight groups of a valid IPv6 address. */
function groupsOf(address: string): readonly number[] {
  const [left = '', right = ''] = address.split('::')
  const [head, tail] = [parse(left), parse(right)]
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

function parse(part: string): readonly number[] {
  if (part === '') return []
  return part.split(':').flatMap((group) => {
    if (!group.includes('.')) return [Number.parseInt(group, 16)]
    const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number)
    return [a * 256 + b, c * 256 + d]
  })
}
