import assert from 'node:assert/strict'
import { test } from 'node:test'
import { networkOf, networksOf } from './client-network.ts'

test('an IPv4 address is its own network in every notation', () => {
  const notations = ['192.0.2.1', '::ffff:192.0.2.1', '::FFFF:c000:201', '0:0:0:0:0:ffff:192.0.2.1']
  for (const address of [...notations, '::ffff:192.0.2.1%eth0'])
    assert.equal(networkOf(address), '192.0.2.1', address)
})

test('addresses of one IPv6 /64 are one network, those of the next another', () => {
  const addresses = [
    '2001:db8:0:7::',
    '2001:db8::7:0:0:0:1',
    '2001:0DB8:0000:0007:ffff:ffff:ffff:ffff',
    '2001:db8:0:7::192.0.2.1',
    '2001:db8:0:7::1%eth0',
  ]
  for (const address of addresses) assert.equal(networkOf(address), '2001:db8:0:7::/64', address)
  assert.equal(networkOf('2001:db8:0:8::1'), '2001:db8:0:8::/64')
  assert.equal(networkOf('2001:db8::7:0:0:1'), '2001:db8:0:0::/64')
  assert.equal(networkOf('::1'), '0:0:0:0::/64')
  assert.equal(networkOf('::'), '0:0:0:0::/64')
})

test('text that is not an address is returned unchanged', () => {
  for (const text of ['', 'unknown', '192.0.2.1:80']) assert.equal(networkOf(text), text)
})

test('an IPv6 address has three networks, an IPv4 address one', () => {
  assert.deepEqual(networksOf('2001:db8:0:7a1::1'), [
    '2001:db8:0:7a1::/64',
    '2001:db8:0:700::/56',
    '2001:db8:0::/48',
  ])
  assert.deepEqual(networksOf('::ffff:192.0.2.1'), ['192.0.2.1'])
})
