/** A response with a replaced body. Headers that describe the original bytes are dropped; the rest is copied. */

const ABOUT_BYTES = [
  'content-length',
  'content-encoding',
  'transfer-encoding',
  'etag',
  'content-md5',
  'digest',
]

export function rewrittenResponse(response: Response, text: string): Response {
  const headers = new Headers(response.headers)
  for (const name of ABOUT_BYTES) headers.delete(name)
  const { status, statusText } = response
  const rewritten = new Response(text, { status, statusText, headers })
  // Constructed responses lack these, and SDKs read them.
  for (const name of ['url', 'redirected', 'type'] as const) {
    Object.defineProperty(rewritten, name, { value: response[name] })
  }
  return rewritten
}
