/**
 * Validates answers against the Matrix specification's OpenAPI (3.1, YAML): finds the response schema of a method, path
 * and status, and validates with Ajv. The specification is not part of this project; MATRIX_SPEC_DIR is its directory.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { parse } from 'yaml'

type Node = { readonly [member: string]: unknown }

const SPEC_DIR = resolve(process.env['MATRIX_SPEC_DIR'] ?? join(import.meta.dirname, '../../../shared/spec'))
const CLIENT_API = join(SPEC_DIR, 'data/api/client-server')

/** Whether the specification is available. */
export const specAvailable: boolean = existsSync(CLIENT_API)

export const SPEC_MISSING = `Matrix specification not found in ${SPEC_DIR}; set MATRIX_SPEC_DIR to a checkout of matrix-org/matrix-spec`

type Operation = { readonly node: Node; readonly file: string }

export class MatrixSpec {
  readonly #documents = new Map<string, unknown>()
  readonly #operations = new Map<string, Operation>()
  readonly #validators = new Map<string, ValidateFunction>()
  readonly #ajv: Ajv2020

  constructor() {
    this.#ajv = new Ajv2020({ strict: false, allErrors: true })
    addFormats.default(this.#ajv)
    for (const name of readdirSync(CLIENT_API).filter((entry) => entry.endsWith('.yaml'))) {
      const file = join(CLIENT_API, name)
      const document = asNode(this.#document(file))
      const base = basePathOf(document)
      for (const [path, methods] of Object.entries(asNode(document['paths']))) {
        for (const [method, node] of Object.entries(asNode(methods))) {
          this.#operations.set(nameOf(method, base + path), { node: asNode(node), file })
        }
      }
    }
  }

  /** Whether the specification has this operation. Path parameters may be `:name` or `{name}`. */
  has(method: string, path: string): boolean {
    return this.#operations.has(nameOf(method, path))
  }

  /** Violations of the specification; empty if valid. A status that it does not list is validated as an error. */
  faults(method: string, path: string, status: number, body: unknown): readonly string[] {
    const validate = this.#validator(method, path, status, body)
    return validate(body) ? [] : (validate.errors ?? []).map(describe)
  }

  /** The specification's example request body, or undefined. */
  requestExample(method: string, path: string): unknown {
    const { node, file } = this.#operation(method, path)
    const content = jsonContent(this.#inlined(node['requestBody'], file))
    return content === undefined ? undefined : exampleOf(content)
  }

  /** The specification's example answers with a status. */
  responseExamples(method: string, path: string, status: number): readonly unknown[] {
    const { node, file } = this.#operation(method, path)
    const content = jsonContent(this.#inlined(asNode(node['responses'])[String(status)], file))
    if (content === undefined) return []
    const named = Object.values(asNode(content['examples'])).map((example) => asNode(example)['value'])
    const inline = exampleOf(asNode(content['schema']))
    return [...named, ...(inline === undefined ? [] : [inline])]
  }

  #operation(method: string, path: string): Operation {
    const found = this.#operations.get(nameOf(method, path))
    if (found === undefined) throw new Error(`the specification has no ${method} ${path}`)
    return found
  }

  #validator(method: string, path: string, status: number, body: unknown): ValidateFunction {
    const { node, file } = this.#operation(method, path)
    const response = isTokenError(status, body) ? undefined : asNode(node['responses'])[String(status)]
    const content = jsonContent(this.#inlined(response, file))
    const standard = 'flows' in asNode(body) ? 'auth_response.yaml' : errorFile(status)
    const key = content === undefined ? standard : `${nameOf(method, path)} ${status}`
    const known = this.#validators.get(key)
    if (known !== undefined) return known
    if (content === undefined && status < 400) throw new Error(`${method} ${path} must not answer ${status}`)
    const schema =
      content === undefined
        ? this.#inlined({ $ref: `definitions/${standard}` }, join(CLIENT_API, 'standard'))
        : content['schema']
    const validate = this.#ajv.compile(asNode(schema))
    this.#validators.set(key, validate)
    return validate
  }

  #document(file: string): unknown {
    if (!this.#documents.has(file)) this.#documents.set(file, parse(readFileSync(file, 'utf8')))
    return this.#documents.get(file)
  }

  /** A value with every `$ref` replaced by its target. A recursive reference accepts anything. */
  #inlined(value: unknown, file: string, above: readonly string[] = []): unknown {
    if (Array.isArray(value)) return value.map((item) => this.#inlined(item, file, above))
    if (typeof value !== 'object' || value === null) return value
    const { $ref: reference, ...rest } = value as Node
    if (typeof reference !== 'string') {
      return Object.fromEntries(
        Object.entries(rest).map(([name, member]) => [name, this.#inlined(member, file, above)]),
      )
    }
    const [path = '', pointer = ''] = reference.split('#')
    const target = path === '' ? file : resolve(dirname(file), path)
    const key = `${target}#${pointer}`
    if (above.includes(key)) return {}
    let found = this.#document(target)
    for (const step of pointer.split('/').filter((part) => part !== '')) found = asNode(found)[step]
    return merged(this.#inlined(found, target, [...above, key]), this.#inlined(rest, file, above))
  }
}

/** Merges the siblings of a `$ref` into its target, member by member. */
function merged(under: unknown, over: unknown): unknown {
  if (!isNode(under) || !isNode(over)) return over
  const members = Object.entries(over).map(([name, value]) => [
    name,
    name in under ? merged(under[name], value) : value,
  ])
  return { ...under, ...Object.fromEntries(members) }
}

function basePathOf(document: Node): string {
  const [server] = Array.isArray(document['servers']) ? document['servers'] : []
  const base = asNode(asNode(asNode(server)['variables'])['basePath'])['default']
  return typeof base === 'string' ? base : ''
}

/** Token errors ("Using access tokens") have the same form for every operation. */
function isTokenError(status: number, body: unknown): boolean {
  const { errcode } = asNode(body)
  return status === 401 && (errcode === 'M_MISSING_TOKEN' || errcode === 'M_UNKNOWN_TOKEN')
}

/** `GET /_matrix/client/v3/devices/{}` */
function nameOf(method: string, path: string): string {
  return `${method.toUpperCase()} ${path.replaceAll(/:\w+|\{\w+\}/g, '{}')}`
}

function jsonContent(part: unknown): Node | undefined {
  const content = asNode(asNode(part)['content'])['application/json']
  return content === undefined ? undefined : asNode(content)
}

/** Example of a schema or content: its own, or one built from its properties if every required one has an example. */
function exampleOf(node: Node): unknown {
  if (node['example'] !== undefined) return node['example']
  const [first] = Object.values(asNode(node['examples']))
  if (first !== undefined) return asNode(first)['value'] ?? first
  if (node['schema'] !== undefined) return exampleOf(asNode(node['schema']))
  const parts = [...(Array.isArray(node['allOf']) ? node['allOf'] : []), { properties: node['properties'] }]
  const members = parts.flatMap((part: Node) => Object.entries(asNode(part['properties'])))
  const examples = members
    .map(([name, member]) => [name, exampleOf(asNode(member))] as const)
    .filter(([, example]) => example !== undefined)
  const required = Array.isArray(node['required']) ? node['required'] : []
  const complete = required.every((name) => examples.some(([member]) => member === name))
  return examples.length === 0 || !complete ? undefined : Object.fromEntries(examples)
}

function errorFile(status: number): string {
  return status === 429 ? 'errors/rate_limited.yaml' : 'errors/error.yaml'
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function asNode(value: unknown): Node {
  return isNode(value) ? value : {}
}

function describe(fault: ErrorObject): string {
  return `${fault.instancePath || 'the answer'} ${fault.message ?? 'is invalid'} ${JSON.stringify(fault.params)}`
}
