/** The checker's own JSON helpers. */
import { MalformedHistory } from './exchange.ts'

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = { readonly [name: string]: Json }

export function parse(source: string): Json {
  try {
    return JSON.parse(source) as Json
  } catch (cause) {
    throw new MalformedHistory(`not JSON: ${source.slice(0, 200)}`, { cause })
  }
}

/** Returns an empty object for any other value. */
export function asObject(value: Json | undefined): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {}
}

export function asList(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? (value as readonly Json[]) : []
}

/** Returns an empty string for any other value. */
export function text(value: Json | undefined): string {
  return typeof value === 'string' ? value : ''
}
