/**
 * Every error as a problem document (RFC 9457): a code, where, and what to do. Whatever comes here that is not an error
 * of Sluice's own list leaves as one: the framework's refusals are translated, anything unknown is `internal`, and
 * nothing of its message or stack is told.
 */
import type { FastifyReply } from 'fastify'
import { retryAfter } from '../decision-headers.ts'
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'
import { AmountOverflow } from '../units.ts'
import type { Problem } from '../wire.ts'
import { REMEDIES } from './remedies.ts'

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8'

/** An error of the list, made from anything thrown. `internal` keeps the cause, for the log alone. */
export function asSluiceError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error
  if (error instanceof AmountOverflow) {
    return new SluiceError('amount_overflow', ERRORS.amount_overflow.says, { path: '', cause: error })
  }
  if (typeof error === 'object' && error !== null) {
    const validation = (error as { validation?: unknown }).validation
    if (Array.isArray(validation) && validation.length > 0) return refusedByShape(validation[0])
    const refused = refusedByFramework((error as { code?: unknown }).code)
    if (refused !== undefined) return refused
  }
  return new SluiceError('internal', ERRORS.internal.says, { cause: error })
}

export function problemOf(error: SluiceError): Problem {
  const { path, remedy = REMEDIES[error.code][1], retryAfterMs, first, complaints } = error.detail
  return {
    type: `/openapi.json#/components/examples/${error.code}`,
    title: ERRORS[error.code].says,
    status: error.status,
    code: error.code,
    detail: error.message,
    // The whole of the input, where nothing in it was named.
    path: path ?? '',
    remedy,
    ...(retryAfterMs !== undefined && { retry_after_ms: retryAfterMs }),
    ...(first !== undefined && { first }),
    ...(complaints !== undefined && { complaints }),
  }
}

/** Answers with a problem and the header fields that belong to it. */
export function sendProblem(reply: FastifyReply, error: SluiceError): FastifyReply {
  if (error.code === 'unauthorized') reply.header('www-authenticate', 'Bearer realm="sluice"')
  const { retryAfterMs } = error.detail
  if (retryAfterMs !== undefined) reply.header('retry-after', retryAfter(retryAfterMs))
  return reply
    .code(error.status)
    .header('content-type', PROBLEM_TYPE)
    .serializer(JSON.stringify)
    .send(problemOf(error))
}

type Translation = readonly [code: ErrorCode, message: string, remedy: string, path?: string]
export const JSON_WANTED = 'Send one JSON value in UTF-8, with content-type application/json.'
const FROM_FRAMEWORK: Readonly<Record<string, Translation>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: [
    'too_big',
    ERRORS.too_big.says,
    'Send at most 1 MiB, or 4 MiB to /v1/batch.',
    '',
  ],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['media_type', ERRORS.media_type.says, JSON_WANTED, '/content-type'],
  FST_ERR_CTP_EMPTY_TYPE: ['media_type', ERRORS.media_type.says, JSON_WANTED, '/content-type'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['invalid', 'The body is empty.', JSON_WANTED, ''],
  FST_ERR_CTP_INVALID_JSON_BODY: ['invalid', 'The body is not JSON.', JSON_WANTED, ''],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: [
    'invalid',
    'The body is not as long as Content-Length says.',
    JSON_WANTED,
    '',
  ],
  FST_ERR_BAD_URL: [
    'invalid',
    'The address is not valid.',
    'Percent-encode what stands in the path, as UTF-8.',
    '',
  ],
  FST_ERR_MAX_PARAM_LENGTH: [
    'invalid',
    'A part of the address is too long.',
    'Ids have at most 128 characters.',
    '',
  ],
  ECONNRESET: ['invalid', 'The connection ended within the body.', 'Send the body whole.', ''],
}

function refusedByFramework(code: unknown): SluiceError | undefined {
  if (typeof code !== 'string' || !Object.hasOwn(FROM_FRAMEWORK, code)) return undefined
  const [own, message, remedy, path] = FROM_FRAMEWORK[code] as Translation
  return new SluiceError(own, message, { remedy, ...(path !== undefined && { path }) })
}

/** What the schema compiler tells of one refusal; `parentSchema` comes with its option `verbose`. */
interface Refusal {
  readonly keyword: string
  readonly instancePath: string
  readonly params: Readonly<Record<string, unknown>>
  readonly message?: string
  readonly parentSchema?: {
    readonly type?: unknown
    readonly description?: string
    readonly properties?: Readonly<Record<string, { readonly description?: string }>>
  }
}

/** What is wrong, by the keyword that refused; the compiler's own words where there are none here. */
const SAID: Readonly<Record<string, string>> = {
  type: 'is not of the right type',
  pattern: 'does not have its form',
  enum: 'is none of those known',
  const: 'is not the one value known',
  minimum: 'is too small',
  maximum: 'is too large',
  maxLength: 'is too long',
  maxItems: 'has too many items',
  maxProperties: 'has too many members',
}
const KINDS: Readonly<Record<string, string>> = {
  object: 'a JSON object',
  array: 'an array',
  string: 'a text',
  number: 'a number',
  integer: 'an integer',
  boolean: 'true or false',
  null: 'null',
}

/** A refusal by the schema, with the path of what is wrong and, from the schema's own words, what would be right. */
export function refusedByShape(refusal: Refusal): SluiceError {
  const { keyword, instancePath, params, parentSchema } = refusal
  const { properties = {} } = parentSchema ?? {}
  if (keyword === 'additionalProperties') {
    const name = String(params.additionalProperty)
    const known = Object.keys(properties)
    return new SluiceError('invalid', `${JSON.stringify(cut(name))} is not known here.`, {
      path: `${instancePath}/${pointerPart(name)}`,
      remedy: `Leave it out. ${known.length === 0 ? 'Nothing is taken here' : `Known are ${known.join(', ')}`}.`,
    })
  }
  if (keyword === 'required') {
    const name = String(params.missingProperty)
    return new SluiceError('invalid', `${JSON.stringify(name)} is missing.`, {
      path: `${instancePath}/${pointerPart(name)}`,
      remedy: `Give it. ${sentence(properties[name]?.description ?? 'It may not be absent')}`,
    })
  }
  const place = instancePath.slice(instancePath.lastIndexOf('/') + 1)
  const what = instancePath === '' ? 'What was sent' : JSON.stringify(cut(place))
  return new SluiceError('invalid', `${what} ${SAID[keyword] ?? refusal.message ?? 'is not valid'}.`, {
    path: instancePath,
    remedy: `Give this: ${sentence(parentSchema?.description ?? typesOf(parentSchema?.type))}`,
  })
}

function typesOf(type: unknown): string {
  const types = [type].flat().map((name) => KINDS[String(name)] ?? 'what the contract says')
  return types.join(' or ')
}

const sentence = (text: string): string => `${text}.`

/** A name as a part of a JSON pointer (RFC 6901). */
export function pointerPart(name: string): string {
  return cut(name).replaceAll('~', '~0').replaceAll('/', '~1').toWellFormed()
}

/** What a caller sent comes back in a message only in part. */
function cut(text: string): string {
  return text.length > 128 ? `${text.slice(0, 128)}…` : text
}
