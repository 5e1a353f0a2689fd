/**
 * The contract, OpenAPI 3.1, made from what the routes say about themselves: shapes from the schemas, the rest from
 * `config.call`. Every call has an example; every error has one, and stands with each call that can answer it.
 */
import swagger from '@fastify/swagger'
import { ERRORS, type ErrorCode } from '../errors.ts'
import type { App, Call } from './door.ts'
import { ERROR_EXAMPLES } from './error-examples.ts'
import { EXAMPLES, type Example } from './examples.ts'

const TAGS: Readonly<Record<Call['tag'], string>> = {
  decide: 'How much is allowed, and from where',
  meter: 'What was really used',
  accounts: 'Who pays',
  credits: 'Grants of credits',
  books: 'What happened, and why',
  policy: 'Features, rate cards and plans',
  keys: 'Who may call',
  node: 'The node itself',
}

/** Errors that any call may answer, beside its own. */
const ANY_CALL: readonly ErrorCode[] = [
  'invalid',
  'overloaded',
  'unavailable',
  'clock_suspect',
  'format_newer',
  'closing',
  'internal',
]
const WITH_KEY: readonly ErrorCode[] = ['unauthorized', 'forbidden']
const WITH_BODY: readonly ErrorCode[] = ['too_big', 'media_type']
const OPEN_CALL: readonly ErrorCode[] = ['invalid', 'closing', 'internal']

/** Which errors a call may answer, in the order of the list. */
export function errorsOf(call: Call, hasBody: boolean): readonly ErrorCode[] {
  const may = new Set<ErrorCode>([
    ...call.errors,
    ...(call.scope === 'open' ? OPEN_CALL : [...ANY_CALL, ...WITH_KEY]),
    ...(hasBody ? WITH_BODY : []),
  ])
  return (Object.keys(ERRORS) as ErrorCode[]).filter((code) => may.has(code))
}

interface Operation {
  [key: string]: unknown
  'x-call'?: Call
  'x-media'?: readonly string[]
  parameters?: readonly Parameter[]
  requestBody?: { required: boolean; content: Record<string, Media> }
  responses: Record<string, { description: string; content?: Record<string, Media>; headers?: object }>
}
interface Parameter {
  readonly name: string
  readonly [key: string]: unknown
}
interface Media {
  schema?: object
  examples?: object
}
type Paths = Record<string, Record<string, Operation>>

/** Registers the maker of the contract; it must know the app before the routes do. */
export function describe(app: App): void {
  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Sluice',
        version: '1',
        description:
          'How much is allowed, and from where. A decision is always 200: a denial is a value. Errors are problem details (RFC 9457).',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
      security: [{ key: [] }],
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => String(json.$id ?? `def-${i}`) },
    transform: ({ schema, url, route }) => {
      const { call, body, media } = route.config ?? {}
      if (call === undefined) return { schema, url }
      const { id: operationId, says: summary, tag } = call
      const told = { operationId, summary, tags: [tag], 'x-call': call, 'x-media': media }
      const security = call.scope === 'open' ? { security: [] } : {}
      return {
        schema: { ...schema, ...(body !== undefined && { body }), ...told, ...security } as never,
        url,
      }
    },
    transformObject: (made) => {
      if (!('openapiObject' in made)) return {}
      const contract = made.openapiObject as unknown as { paths: Paths; components: Record<string, object> }
      for (const [path, operations] of Object.entries(contract.paths)) {
        for (const operation of Object.values(operations)) complete(path, operation)
      }
      contract.components.examples = Object.fromEntries(
        Object.entries(ERROR_EXAMPLES).map(([code, value]) => [
          code,
          { summary: ERRORS[code as ErrorCode].says, value },
        ]),
      )
      return contract as never
    },
  })
}

const HEADERS: Readonly<Record<NonNullable<Call['carries']>, object>> = {
  etag: { ETag: { description: 'The revision or version: send it as If-Match', schema: { type: 'string' } } },
  limits: {
    'RateLimit-Policy': {
      description: 'draft-ietf-httpapi-ratelimit-headers: the limits asked, CU in micro-cu',
      schema: { type: 'string' },
    },
    RateLimit: {
      description: 'What is left of each, and the seconds until it resets',
      schema: { type: 'string' },
    },
    'Retry-After': { description: 'Seconds, where the outcome is `wait`', schema: { type: 'string' } },
  },
}

/** Lays into an operation what the schemas do not say: examples, roles, header fields, problems. */
function complete(path: string, operation: Operation): void {
  const { 'x-call': call, 'x-media': media } = operation
  delete operation['x-call']
  delete operation['x-media']
  if (call === undefined) return
  const example = EXAMPLES.get(call.id)
  if (call.roles.length > 0) operation.description = `Roles: ${call.roles.join(', ')}.`
  operation.parameters = parametersOf(call, path, operation.parameters ?? [], example)
  const body = operation.requestBody
  if (body !== undefined) {
    const [first] = Object.values(body.content)
    const types = media ?? ['application/json']
    body.content = Object.fromEntries(types.map((type) => [type, bodyOf(type, first, example?.body)]))
  }
  const types = body === undefined && media !== undefined ? media : ['application/json']
  const [answered] = Object.values(operation.responses[200]?.content ?? {})
  const examples = example === undefined ? {} : { examples: { [call.id]: { value: example.answer } } }
  const told = (type: string): Media => ({
    schema: answered?.schema ?? { type: type.includes('json') ? 'object' : 'string' },
    ...examples,
  })
  operation.responses = {
    200: {
      description: call.says,
      ...(call.carries !== undefined && { headers: HEADERS[call.carries] }),
      content: Object.fromEntries(types.map((type) => [type, told(type)])),
    },
    ...problemsOf(call, body !== undefined),
  }
}

/** Parameters with the values they have in the call's example, and `If-Match` where it is heard. */
function parametersOf(
  call: Call,
  path: string,
  parameters: readonly Parameter[],
  example: Example | undefined,
): readonly Parameter[] {
  const [examplePath = '', query] = example?.url.split('?') ?? []
  const places = path.split('/')
  const given = new Map<string, string>(new URLSearchParams(query))
  for (const [i, part] of examplePath.split('/').entries()) given.set(places[i]?.slice(1, -1) ?? '', part)
  const told = parameters.map((parameter) => {
    const value = given.get(parameter.name)
    return value === undefined ? parameter : { ...parameter, example: value }
  })
  if (call.ifMatch === undefined) return told
  const description = 'The ETag of what was read: `precondition_failed` where it has changed since'
  const tag = {
    name: 'If-Match',
    in: 'header',
    description,
    schema: { type: 'string' },
    example: example?.ifMatch,
  }
  return [...told, { ...tag, required: call.ifMatch === 'must' }]
}

function bodyOf(type: string, media: Media | undefined, example: unknown): Media {
  const isText = type.includes('yaml')
  const value =
    isText && typeof example === 'object' && example !== null && 'policy' in example
      ? example.policy
      : example
  return {
    schema: isText ? { type: 'string', description: 'The document' } : (media?.schema ?? {}),
    ...(value !== undefined && { examples: { example: { value } } }),
  }
}

function problemsOf(call: Call, hasBody: boolean): Operation['responses'] {
  const byStatus = Map.groupBy(errorsOf(call, hasBody), (code) => ERRORS[code].status)
  return Object.fromEntries(
    [...byStatus].map(([status, codes]) => [
      status,
      {
        description: codes.map((code) => `\`${code}\`: ${ERRORS[code].says}`).join(' '),
        content: {
          'application/problem+json': {
            schema: { $ref: '#/components/schemas/Problem' },
            examples: Object.fromEntries(
              codes.map((code) => [code, { $ref: `#/components/examples/${code}` }]),
            ),
          },
        },
      },
    ]),
  )
}
