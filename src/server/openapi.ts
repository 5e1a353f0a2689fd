/**
 * The contract, OpenAPI 3.1, made from what the routes say about themselves: shapes from the schemas, the rest from
 * `config.call`. Every call has an example; every error has one, and stands with each call that can answer it.
 */
import swagger from '@fastify/swagger'
import { ERRORS, type ErrorCode } from '../errors.ts'
import type { App, Call } from './door.ts'
import { ERROR_EXAMPLES } from './error-examples.ts'
import { EXAMPLES } from './examples.ts'

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
  requestBody?: { required: boolean; content: Record<string, Media> }
  responses: Record<string, { description: string; content?: Record<string, Media>; headers?: object }>
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
      for (const path of Object.values(contract.paths))
        for (const operation of Object.values(path)) complete(operation)
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

/** Lays into an operation what the schemas do not say: examples, roles, problems. */
function complete(operation: Operation): void {
  const { 'x-call': call, 'x-media': media } = operation
  delete operation['x-call']
  delete operation['x-media']
  if (call === undefined) return
  if (call.roles.length > 0) operation.description = `Roles: ${call.roles.join(', ')}.`
  const example = EXAMPLES.get(call.id)
  const body = operation.requestBody
  if (body !== undefined) {
    const [schema] = Object.values(body.content)
    const asked =
      media !== undefined ? media.map((type) => [type, bodyOf(type, schema, example?.body)]) : undefined
    body.content = Object.fromEntries(
      asked ?? [['application/json', bodyOf('application/json', schema, example?.body)]],
    )
  }
  const types = body === undefined && media !== undefined ? media : ['application/json']
  const answered = operation.responses[200] ?? { description: '' }
  const answerSchema = Object.values(answered.content ?? {})[0]?.schema
  operation.responses = {
    200: {
      description: call.says,
      content: Object.fromEntries(
        types.map((type) => [
          type,
          {
            schema: answerSchema ?? { type: type.includes('json') ? 'object' : 'string' },
            ...(example?.answer !== undefined && { examples: { [call.id]: { value: example.answer } } }),
          },
        ]),
      ),
    },
    ...problemsOf(call, body !== undefined),
  }
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
