/** Ed25519 verification over node:crypto. Malformed keys and signatures verify as false. */
import { createPublicKey, verify } from 'node:crypto'

/**
 * @param publicKey unpadded standard base64 of 32 bytes
 * @param signature base64 of 64 bytes
 * @param text the signed text; verified as UTF-8
 */
export function verifyEd25519(publicKey: string, signature: string, text: string): boolean {
  const signatureBytes = Buffer.from(signature, 'base64')
  if (signatureBytes.length !== 64 || Buffer.from(publicKey, 'base64').length !== 32) return false
  try {
    const x = Buffer.from(publicKey, 'base64').toString('base64url')
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
    return verify(null, Buffer.from(text), key, signatureBytes)
  } catch {
    return false // not a point on the curve
  }
}
