/**
 * Faults of one line in the rules of the domain. `npm run test:mutants` makes each of them in memory and demands that
 * the tests next to the rules, or the pool's histories in memory, fail. A line is given without its indentation and
 * must exist exactly once in its file, so this list follows the code. A survivor belongs to SURVIVORS with its
 * reason.
 */
export type Mutant = {
  /** Below packages/server/src. */
  readonly file: string
  readonly line: string
  readonly replacement: string
}

type Change = readonly [line: string, replacement: string]

const CHANGES: Readonly<Record<string, readonly Change[]>> = {
  'pool/upload.ts': [
    [
      'const isNew = command.deviceKeys !== undefined && command.deviceKeys.json !== facts.deviceKeys',
      'const isNew = command.deviceKeys !== undefined',
    ],
    ['if (identityChanged) pools.purge(IDENTITY_PURGE)', ''],
    [
      'if (policy.verifySignatures || facts.identityChanged || identityChanged) {',
      'if (policy.verifySignatures || facts.identityChanged) {',
    ],
    ['const identity = deviceKeys?.identity ?? facts.identity', 'const identity = facts.identity'],
    ["mayHeal: policy.onConflict === 'heal',", 'mayHeal: true,'],
    ['alreadyCounted: identityChanged ? 1 : 0,', 'alreadyCounted: 0,'],
    [
      'const left = identityChanged || healed || evicted.length > 0',
      'const left = identityChanged || healed',
    ],
    [
      'const changed = pools.changes({ left, signal: identityChanged || healed, now })',
      'const changed = pools.changes({ left, signal: healed, now })',
    ],
    ['countsAcknowledged: true,', 'countsAcknowledged: false,'],
    [
      '...(identityChanged && { givenUp: givenUpBy(facts.identity, identity) }),',
      '...(identityChanged && { givenUp: givenUpBy(identity, facts.identity) }),',
    ],
    ["...(healed && { refused: 'forget' }),", ''],
    ['available: [],', "available: 'all',"],
  ],
  'pool/enter-keys.ts': [
    ['requireAlgorithms(pools.algorithms, wanted, policy.algorithmsPerDevice)', ''],
    [
      'const wanted = [...oneTimeKeys, ...fallbackKeys].map((key) => key.algorithm)',
      'const wanted = oneTimeKeys.map((key) => key.algorithm)',
    ],
    ['for (const { hash } of decision.store) stored.add(hash)', ''],
    ['const again = decideBatches(pools, batches)', 'const again = batches'],
    ['if (!mayHeal) throw refusal', ''],
    ["if (kind === 'repeat') throw refusal", ''],
    [
      "if (kind === 'first') throw new RememberedRefusal(refusal, { refused: attempt })",
      "if (kind === 'first') throw refusal",
    ],
    ['stored.push(...decision.store)', ''],
    ['stored.push(key)', ''],
    ['const used = request.alreadyCounted + stored.length', 'const used = stored.length'],
    [
      'const afterHeal = healed ? requireSecondTry(request, conflicts, facts, policy) : facts.counts',
      'const afterHeal = (healed && requireSecondTry(request, conflicts, facts, policy), facts.counts)',
    ],
    [
      'return keys.reduce((sum, { keyId, json }) => sum + utf8Length(keyId) + utf8Length(json), 0)',
      'return keys.reduce((sum, { keyId, json }) => sum + keyId.length + json.length, 0)',
    ],
    ['evicted.push(...evictOver(pool, policy.keysPerPool))', ''],
    ['const surplus = pool.count - keysPerPool', 'const surplus = pool.count - keysPerPool + 1'],
    ["if (outcome !== 'stored') continue", ''],
  ],
  'pool/outcomes.ts': [
    ['export const ID_REUSE_LOOKBACK = 5_000', 'export const ID_REUSE_LOOKBACK = 5_001'],
    [
      'return addedSince !== undefined && addedSince < ID_REUSE_LOOKBACK',
      'return addedSince !== undefined && addedSince <= ID_REUSE_LOOKBACK',
    ],
    ['if (earlier !== undefined) keptAs(earlier)', 'if (false) keptAs(key.keyId)'],
    ["else if (known?.state === 'available') keptAs(known.keyId)", ''],
    [
      "else if (known?.state === 'issued') outcomes.set(name, 'already_issued')",
      "else if (known?.state === 'issued') outcomes.set(name, 'already_removed')",
    ],
    ["else if (known !== undefined) outcomes.set(name, 'already_removed')", ''],
    [
      'if (keyId !== key.keyId) storedAs.set(name, keyName(key.algorithm, keyId))',
      'storedAs.set(name, keyName(key.algorithm, keyId))',
    ],
    [
      'for (const key of keys.toSorted((a, b) => compareCodePoints(a.keyId, b.keyId))) {',
      'for (const key of keys.toSorted((a, b) => (a.keyId < b.keyId ? -1 : 1))) {',
    ],
    ['if (stored === undefined) {', 'if (stored !== key) {'],
  ],
  'pool/conflict.ts': [
    ['const HEAL_AFTER_MS = 2_000', 'const HEAL_AFTER_MS = 2_001'],
    ['export const HEAL_WITHIN_MS = 60 * 60 * 1000', 'export const HEAL_WITHIN_MS = 60 * 60 * 1001'],
    ["if (age > HEAL_WITHIN_MS) return 'first'", "if (age >= HEAL_WITHIN_MS) return 'first'"],
    [
      "return { materials: hash('sha256', names.sort().join(' '), 'base64url'), ts: now }",
      "return { materials: hash('sha256', names.join(' '), 'base64url'), ts: now }",
    ],
    [
      'const names = keys.map((key) => `${key.algorithm}:${key.material}`)',
      'const names = keys.map((key) => `${key.algorithm}:${key.keyId}`)',
    ],
  ],
  'pool/heal.ts': [
    ["pool.remove(pool.availableAmong(keys), 'withdrawn')", ''],
    ["pool.clear('purged')", "pool.clear('withdrawn')"],
  ],
  'pool/fallback.ts': [
    ["if (key.material === pool.fallback?.material) return 'already_stored'", ''],
    ["if (pool.wasFallback(key.hash)) return 'already_replaced'", ''],
    ["return isTaken(key) ? 'in_use_elsewhere' : 'stored'", "return 'stored'"],
    ['if (other !== undefined) {', 'if (other?.keyId === key.keyId) {'],
  ],
  'pool/identity.ts': [
    ['if (before !== undefined && now === undefined) {', 'if (now === undefined) {'],
    ['if (givenUp.has(part)) {', 'if (givenUp.size === PARTS.length) {'],
    ['if (before === now || now === undefined) continue', 'if (now === undefined) continue'],
    ['if (before !== undefined) changed = true', 'changed = true'],
    [
      'const parts = PARTS.filter((part) => stored[part] !== undefined && stored[part] !== uploaded[part])',
      'const parts = PARTS.filter((part) => stored[part] !== undefined)',
    ],
  ],
  'pool/purge.ts': [
    [
      'export const IDENTITY_PURGE: PurgeRule = { fallbackKeys: true, hidesIssued: true }',
      'export const IDENTITY_PURGE: PurgeRule = { fallbackKeys: false, hidesIssued: true }',
    ],
    [
      'export const REMOVAL_PURGE: PurgeRule = { fallbackKeys: true, hidesIssued: true }',
      'export const REMOVAL_PURGE: PurgeRule = { fallbackKeys: true, hidesIssued: false }',
    ],
    [
      'return { fallbackKeys: dropsFallbackKeys, hidesIssued: false }',
      'return { fallbackKeys: true, hidesIssued: false }',
    ],
  ],
  'pool/daily-budget.ts': [
    ['if (used[budget] === 0 || limit === 0) continue', 'if (limit === 0) continue'],
    ['if (before + used[budget] > limit) {', 'if (before + used[budget] >= limit) {'],
    ['if (now - start >= DAY_MS) return { start: now, used: 0 }', ''],
    ['return { start: Math.min(start, now), used }', 'return { start, used }'],
    ['const isSetBack = now < counts[budget].start', 'const isSetBack = false'],
    [
      'after = { ...after, [budget]: { start, used: before + used[budget] } }',
      'after = { ...counts, [budget]: { start, used: before + used[budget] } }',
    ],
  ],
  'pool/limits.ts': [
    ['if (all.size >= limit && algorithm !== SIGNED_CURVE25519)', 'if (all.size >= limit)'],
    ['if (all.has(algorithm)) continue', ''],
    ['all.add(algorithm)', ''],
    [
      'return limitExceeded(`This device ${what} too often.`, Math.min(waitMs, RETRY_FLOOD_MS))',
      'return limitExceeded(`This device ${what} too often.`, waitMs)',
    ],
  ],
  'pool/signed-keys.ts': [
    ['if (this.#keys.length === 0) return undefined', ''],
    ['if (unsigned === undefined) return undefined', 'return undefined'],
    [
      'if (isSigned(key.json, identity, this.#owner)) continue',
      'if (n > 0 || isSigned(key.json, identity, this.#owner)) continue',
    ],
    [
      "if (!this.#unsigned.has(identity.ed25519)) return { kind: 'verify', identity, changes: NO_CHANGES }",
      "if (this.#unsigned.size === 0) return { kind: 'verify', identity, changes: NO_CHANGES }",
    ],
  ],
  'pool/reset.ts': [
    [
      'if (facts.replay !== undefined && facts.replay.ts > now - REPLAY_RESET_MS) {',
      'if (facts.replay !== undefined) {',
    ],
    ["if (waitMs > 0) throw tooFast('resets its keys', waitMs)", ''],
    ['checkPreconditions(command, pools.status())', ''],
    [
      'if (requestId !== undefined && facts.replaysRemembered >= REPLAYED_RESETS_PER_DEVICE)',
      'if (requestId !== undefined && facts.replaysRemembered > REPLAYED_RESETS_PER_DEVICE)',
    ],
    ['if (policy.verifySignatures || facts.identityChanged) {', 'if (policy.verifySignatures) {'],
    [
      'const entering = { oneTimeKeys, fallbackKeys, now, mayHeal: false, alreadyCounted: 0 }',
      'const entering = { oneTimeKeys, fallbackKeys, now, mayHeal: true, alreadyCounted: 0 }',
    ],
    ['const left = withdrawn.length > 0 || evicted.length > 0', 'const left = withdrawn.length > 0'],
    [
      "const names = withdrawal.all ? 'all' : [...new Set(withdrawal.names)]",
      "const names = withdrawal.all ? 'all' : withdrawal.names",
    ],
    ["pool.clear('withdrawn', kept)", "pool.clear('withdrawn')"],
    [
      'const kept = pool.availableAmong(offered.filter((key) => key.algorithm === pool.algorithm))',
      'const kept = pool.availableAmong(offered)',
    ],
    [
      'if (pool === undefined || key === undefined) absent.push(name)',
      'if (pool === undefined || key === undefined) continue',
    ],
    [
      "if (ifEpoch !== undefined && ifEpoch !== status.epoch) throw changed('epoch', ifEpoch, status.epoch)",
      '',
    ],
    [
      'replay: { requestId, answer: encodeReplay(result), ts: now, forgetUpTo: now - REPLAY_RESET_MS },',
      'replay: { requestId, answer: encodeReplay(result), ts: now, forgetUpTo: now - REPLAY_RESET_MS - 1 },',
    ],
    ['countsAcknowledged: true,', ''],
  ],
  'pool/reset-replay.ts': [
    ['fallbackOutcomes: new Map(kept.fallbackOutcomes),', 'fallbackOutcomes: new Map(),'],
    ['export const REPLAYED_RESETS_PER_DEVICE = 1_000', 'export const REPLAYED_RESETS_PER_DEVICE = 1_001'],
  ],
  'pool/device-pools.ts': [
    [
      'return { version: version + (changed ? 1 : 0), generation: generation + (left ? 1 : 0) }',
      'return { version: version + 1, generation: generation + (left ? 1 : 0) }',
    ],
    ['if (pools.length === 0 && !left) return undefined', 'if (pools.length === 0) return undefined'],
    [
      'return [...this.#pools.values()].sort((a, b) => compareCodePoints(a.algorithm, b.algorithm))',
      'return [...this.#pools.values()]',
    ],
  ],
  'pool/pool.ts': [
    ["if (removal === 'withdrawn') return undefined", ''],
    ['if (this.#facts.formerFallbacks.has(hash)) return true', ''],
    [
      "if (met?.state !== 'available' || this.#removalOf(met.place) !== undefined) continue",
      "if (met?.state !== 'available') continue",
    ],
    ['if (this.#count === kept.length) return', ''],
    ['for (const { keyId, material } of kept) this.#mix(keyId, material)', ''],
    ["this.clear('purged')", "this.clear('withdrawn')"],
    ["if (this.#fallback !== undefined) this.#formerFallback = 'withdrawn'", ''],
    [
      'return known.filter(({ place }) => !this.#removed.has(place)).sort((a, b) => a.place - b.place)',
      'return known.filter(({ place }) => !this.#removed.has(place))',
    ],
    ['this.#fallback = { material: key.material, used: false }', ''],
    ['this.#formerFallback !== undefined ||', ''],
  ],
  'pool/one-place.ts': [
    ['if (!isCurve25519(key.material)) return false', ''],
    [
      "if ((pool !== own || kind === 'fallback_key') && pool.hasOneTimeKey(key.hash)) return true",
      'if (pool !== own && pool.hasOneTimeKey(key.hash)) return true',
    ],
    [
      "if ((pool !== own || kind === 'one_time_key') && pool.hasFallback(key)) return true",
      'if (pool !== own && pool.hasFallback(key)) return true',
    ],
    [
      'return (key) => key.algorithm === algorithm || isCurve25519(key.material)',
      'return (key) => key.algorithm === algorithm',
    ],
  ],
  'pool/claim.ts': [
    ["if (available === 0) return hasFallback ? 'fallback' : 'none'", "if (available === 0) return 'none'"],
    ["if (hasFallback) return 'rate_limited'", ''],
    [
      "return available > reserveOf(filled) || budget.takesOfReserve() ? 'one_time_key' : 'withheld'",
      "return available >= reserveOf(filled) || budget.takesOfReserve() ? 'one_time_key' : 'withheld'",
    ],
    ['const MIN_RESERVE = 5', 'const MIN_RESERVE = 4'],
    [
      'return Math.max(MIN_RESERVE, Math.ceil(filled / 5))',
      'return Math.max(MIN_RESERVE, Math.floor(filled / 5))',
    ],
  ],
  'pool/wake.ts': [
    [
      'return count < acknowledged && count <= Math.floor(acknowledged / 2)',
      'return count < acknowledged && count < Math.floor(acknowledged / 2)',
    ],
    ['return reachedLowWater(acknowledged, count) ? count : acknowledged', 'return acknowledged'],
    ['return Math.min(acknowledged, advertised)', 'return advertised'],
  ],
  'pool/depletion.ts': [
    [
      'return this.#buckets[by].take(`${device} ${id}`, now) === 0',
      'return this.#buckets.server.take(`${device} ${id}`, now) === 0',
    ],
    [
      "return by === 'server' && this.#ofReserve.take(`${device} ${id}`, now) === 0",
      'return this.#ofReserve.take(`${device} ${id}`, now) === 0',
    ],
    ['const USERS_PER_SERVER = 10', 'const USERS_PER_SERVER = 9'],
  ],
  'pool/issued-pages.ts': [
    ['if (first === -1) return []', ''],
    [
      '.map((pool) => (pool === cursor?.pool ? cursor : { pool, place: Number.MAX_SAFE_INTEGER }))',
      '.map((pool) => ({ pool, place: Number.MAX_SAFE_INTEGER }))',
    ],
  ],
  'pool/key-pools.ts': [
    ["charged = decision.kind !== 'answer' || !decision.answer.replayed", 'charged = true'],
    ['if (!charged && waitMs === 0) this.#resetsPerDevice?.refund(device)', ''],
    ['this.#identities.set(session.deviceRef, decision.identity)', ''],
    ['requireSignedDeviceKeys(deviceKeys, session)', ''],
    ['const MAX_ATTEMPTS = 5', 'const MAX_ATTEMPTS = 4'],
  ],
  'pool/limited-claims.ts': [['return (known?.count ?? 0) + 1', 'return 1']],
  'lib/client-network.ts': [
    [
      'const isMappedIPv4 = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff',
      'const isMappedIPv4 = false',
    ],
    ['const PREFIXES = [64, 56, 48] as const', 'const PREFIXES = [64, 60, 48] as const'],
    [
      '.map((group, i) => (group & (0xffff << Math.max(0, 16 * (i + 1) - prefix))).toString(16))',
      '.map((group) => group.toString(16))',
    ],
    ["const [text = ''] = address.split('%')", 'const text = address'],
  ],
  'lib/gate.ts': [
    ['else if (line.used < this.#places) line.used++', 'else if (line.used <= this.#places) line.used++'],
    [
      'else if (line.waiting.length >= this.#maxWaiting) return undefined',
      'else if (line.waiting.length > this.#maxWaiting) return undefined',
    ],
    ['const next = line.waiting.shift()', 'const next = line.waiting.pop()'],
  ],
  'lib/turns.ts': [
    ['if (from > 0) await nextTurn()', ''],
    [
      'if (waiting.push(resolve) === 1) setImmediate(continueOne)',
      'waiting.push(resolve); setImmediate(continueOne)',
    ],
    ['waiting.shift()?.()', 'for (const next of waiting.splice(0)) next()'],
  ],
  'sync/account-data.ts': [
    ['if (others.count >= accountDataTypesPerUser) {', 'if (others.count > accountDataTypesPerUser) {'],
    ['if (bytes > accountDataTotalBytes) {', 'if (bytes >= accountDataTotalBytes) {'],
    [
      'const bytes = others.bytes + utf8Length(type) + utf8Length(content)',
      'const bytes = others.bytes + utf8Length(content)',
    ],
  ],
  'lib/token-bucket.ts': [
    [
      'if (this.#tokensIn(bucket, nowMs) >= this.#rate.burst) this.#buckets.delete(name)',
      'this.#buckets.delete(name)',
    ],
    [
      'return missing <= 0 ? 0 : (missing / perSecond) * 1000',
      'return missing < 0 ? 0 : (missing / perSecond) * 1000 + 1',
    ],
    ['this.charge(key, nowMs, waitMs === 0 ? amount : 0)', 'this.charge(key, nowMs, waitMs === 0 ? 1 : 0)'],
    [
      'const missing = Math.min(amount, burst) - this.#tokensIn(this.#buckets.get(boundedKey(key)), nowMs)',
      'const missing = amount - this.#tokensIn(this.#buckets.get(boundedKey(key)), nowMs)',
    ],
    [
      'if (bucket !== undefined) bucket.tokens = Math.min(this.#rate.burst, bucket.tokens + amount)',
      'if (bucket !== undefined) bucket.tokens = this.#rate.burst',
    ],
    [
      'return Math.min(burst, bucket.tokens + (Math.max(0, nowMs - bucket.ts) / 1000) * perSecond)',
      'return Math.min(burst, bucket.tokens + (Math.abs(nowMs - bucket.ts) / 1000) * perSecond)',
    ],
    ['return this.#buckets.size < this.#maxBuckets', 'return true'],
  ],
  'pool/pool-answer.ts': [
    [
      'return status.algorithms.filter((a) => a.fallback?.used === false).map((a) => a.algorithm)',
      'return status.algorithms.filter((a) => a.fallback !== undefined).map((a) => a.algorithm)',
    ],
  ],
  'fence/judge.ts': [
    ['if (found >= mark.n && isKnown) continue', 'if (found >= mark.n) continue'],
    [
      'const hasEnded = mark.epoch !== epoch && former.has(mark.epoch)',
      'const hasEnded = former.has(mark.epoch)',
    ],
    ['return now - lastWriteTs > KEEP_FALLBACK_KEYS_MS', 'return now - lastWriteTs >= KEEP_FALLBACK_KEYS_MS'],
    [
      'if (Math.max(lastWriteTs, newestTs ?? 0) > now + CLOCK_STEP_MS) return true',
      'if (lastWriteTs > now + CLOCK_STEP_MS) return true',
    ],
    [
      "if (!hasEnded) return { kind: 'behind', lane, acknowledged: mark.n, found }",
      "if (!isKnown) return { kind: 'behind', lane, acknowledged: mark.n, found }",
    ],
  ],
  'accounts/open-session.ts': [
    [
      "if (passwordHash !== account.passwordHash) throw forbidden('The password was changed during this login.')",
      '',
    ],
    ['if (isLocked) throw userLocked(403)', ''],
    ['requireFreeDeviceId(deviceId, namesKey)', ''],
    ['enforceDeviceLimit(deviceCount, limits)', ''],
    ['if (device !== undefined && !device.isRemoved) {', 'if (device !== undefined) {'],
  ],
  'accounts/refresh-tokens.ts': [
    [
      'return expiresTs !== undefined && expiresTs <= now',
      'return expiresTs !== undefined && expiresTs < now',
    ],
    [
      'if (expiresInMs === undefined) return { tokens: { accessToken }, stored: { tokenHash } }',
      'if (!refreshable) return { tokens: { accessToken }, stored: { tokenHash } }',
    ],
    ['if (!refreshable) return { tokens: { accessToken, expiresInMs }, stored: expires }', ''],
    ['if (session === undefined) throw unknownToken()', ''],
  ],
  'accounts/auth-session.ts': [
    [
      'const fits = utf8Length(JSON.stringify(rest)) <= MAX_REMEMBERED_BYTES[owner.kind]',
      'const fits = utf8Length(JSON.stringify(rest)) <= MAX_REMEMBERED_BYTES.user',
    ],
    ['const rest = withoutAuth(body)', 'const rest = body'],
    [
      "return hash('sha256', stableText(withoutAuth(body)), 'base64url')",
      "return hash('sha256', stableText(body), 'base64url')",
    ],
    ["return session.operation === hash('sha256', operation, 'base64url')", 'return true'],
    [
      "return new Uint8Array(hkdfSync('sha256', id, '', 'latchkey auth session', 32))",
      "return new Uint8Array(hkdfSync('sha256', '', '', 'latchkey auth session', 32))",
    ],
    ['expiresTs: now + AUTH_SESSION_MS,', 'expiresTs: now,'],
  ],
  'accounts/auth-session-bounds.ts': [
    [
      'const ofOwner = Math.max(0, counts.ofOwner - PER_OWNER[kind])',
      'const ofOwner = Math.max(0, counts.ofOwner - PER_OWNER.network)',
    ],
    [
      'return { ofOwner, ofLargest: Math.max(0, counts.ofKind - ofOwner - IN_ALL) }',
      'return { ofOwner, ofLargest: Math.max(0, counts.ofKind - IN_ALL) }',
    ],
  ],
  'accounts/registration.ts': [
    [
      'return (usesAllowed === undefined || uses < usesAllowed) && (expiresTs === undefined || expiresTs > now)',
      'return (usesAllowed === undefined || uses <= usesAllowed) && (expiresTs === undefined || expiresTs > now)',
    ],
  ],
  'devices/device-limit.ts': [['if (count < devicesPerUser) return', 'if (count <= devicesPerUser) return']],
  'devices/add-signatures.ts': [['replacesOthers: !own,', 'replacesOthers: false,']],
  'devices/remove.ts': [
    [
      "if (choice.kind === 'others') return deviceRef !== choice.than",
      "if (choice.kind === 'others') return true",
    ],
  ],
  'devices/replace-keys.ts': [
    ['return old === undefined || old === publicKey ? [] : [old]', 'return old === undefined ? [] : [old]'],
    ['requireFreePublicKeys(uploaded, deviceIds)', ''],
  ],
  'devices/tracking.ts': [['.filter(({ awaited }) => !awaited)', '']],
  'messages/send.ts': [
    ["if (isRemembered(sentTs, now)) return { kind: 'nothing' }", ''],
    ["if (deliveries.length === 0) return { kind: 'nothing' }", ''],
    ['const waitMs = charge?.take(load) ?? 0', 'const waitMs = 0'],
    ['length += event.length', 'length = event.length'],
    [
      "if (length > MAX_FAN_OUT_LENGTH) return { kind: 'refused', error: fanOutTooLarge() }",
      "if (length >= MAX_FAN_OUT_LENGTH) return { kind: 'refused', error: fanOutTooLarge() }",
    ],
  ],
  'messages/transaction-memory.ts': [
    [
      'return sentTs !== undefined && sentTs >= transactionsForgottenBefore(now)',
      'return sentTs !== undefined && sentTs > transactionsForgottenBefore(now)',
    ],
    [
      "return hash('sha256', `${eventType}\\0${transactionId}`, 'base64url')",
      "return hash('sha256', `${eventType}/${transactionId}`, 'base64url')",
    ],
    ['const isDue = added >= CHECK_EVERY', 'const isDue = added > CHECK_EVERY'],
    ['this.#added.set(device, isDue ? 0 : added)', 'this.#added.set(device, added)'],
  ],
  'messages/eviction.ts': [
    [
      "return planFor('length', senders, inboxLength) ?? planFor('messages', senders, inboxMessages)",
      "return planFor('messages', senders, inboxMessages) ?? planFor('length', senders, inboxLength)",
    ],
    ['if (total <= limit) return undefined', 'if (total < limit) return undefined'],
    ['const kept = limit - Math.floor(limit / ROOM_DIVISOR)', 'const kept = limit'],
    [
      'const level = Math.floor((kept - rest) / (place + 1))',
      'const level = Math.floor((kept - rest) / (place + 2))',
    ],
    ['const above = senders.filter((load) => load[measure] > level)', 'const above = senders'],
    ['left.set(sender, (left.get(sender) ?? 0) - amount)', ''],
    ['if (level >= (descending[place + 1] ?? 0)) return level', 'return level'],
    [
      'if (found === undefined || total > found.total || (total === found.total && pos < found.pos))',
      'if (found === undefined || total > found.total)',
    ],
    ["const amount = measure === 'messages' ? 1 : message.length", 'const amount = message.length'],
  ],
  'messages/send-budget.ts': [
    ['if (waitMs > 0) return waitMs', ''],
    ['this.#kib.charge(key, now, load.length / KIB)', ''],
    ['this.#deliveries.charge(key, now, load.messages)', ''],
    ['taken = load', ''],
    ['taken = undefined', ''],
    ['Math.min(waitMs, MAX_RETRY_MS),', 'waitMs,'],
  ],
  'messages/inbox.ts': [
    [
      'return messages > limits.inboxMessages || length > limits.inboxLength',
      'return messages > limits.inboxMessages',
    ],
    ['for (const _ of event) length++', 'length = event.length'],
  ],
  'sync/filters.ts': [
    ["if (same !== undefined) return { kind: 'known', filterId: same }", ''],
    ['const dropUpTo = filterId - filtersPerUser', 'const dropUpTo = filterId - filtersPerUser - 1'],
  ],
  'sync/reading.ts': [
    ['return confirms ? since : undefined', 'return since'],
    [
      'return reading.position !== reading.since && isAnswer(reading, query)',
      'return isAnswer(reading, query)',
    ],
    [
      'return { from: since, listsFrom: everyone ? BEGINNING : listsSince }',
      'return { from: since, listsFrom: listsSince }',
    ],
  ],
  'sync/page.ts': [
    [
      'const isFull = messages.length >= toDevicePerSync || bytesOf(messages) >= syncPageBytes',
      'const isFull = bytesOf(messages) >= syncPageBytes',
    ],
    ['return items.filter(({ pos }) => pos <= position)', 'return items'],
    [
      'return Math.min(lastMessage?.pos ?? endOfStream, lastData?.pos ?? endOfStream)',
      'return lastMessage?.pos ?? lastData?.pos ?? endOfStream',
    ],
  ],
  'sync/wait-places.ts': [
    ['if (ofDevice.staying.size >= perDevice) this.#giveWay(ofDevice)', ''],
    ['if (ofUser.staying.size >= perUser) this.#giveWay(ofUser)', ''],
    ['if (oldest === undefined || heaviest.size <= own + 1)', 'if (oldest === undefined)'],
  ],
  'sync/token.ts': [
    [
      'if (seen <= end.position) return { since: position, listsSince: lists, newEpoch: false, everyone: false }',
      'if (seen < end.position) return { since: position, listsSince: lists, newEpoch: false, everyone: false }',
    ],
    ['since: Math.min(position, formerEnd),', 'since: position,'],
    ['listsSince: Math.min(lists, formerEnd),', 'listsSince: lists,'],
    ['everyone: seen > formerEnd,', 'everyone: position > formerEnd,'],
    ['return Math.max(position, lists)', 'return position'],
  ],
}

export const MUTANTS: readonly Mutant[] = Object.entries(CHANGES).flatMap(([file, changes]) =>
  changes.map(([line, replacement]) => ({ file, line, replacement })),
)

/** Mutants that the tests of the domain cannot notice, by file and line. One that they do notice is a failure too. */
export const SURVIVORS: readonly {
  readonly file: string
  readonly line: string
  readonly reason: string
}[] = []
