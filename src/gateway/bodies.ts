/**
 * What callers send, read whole before anything is decided: the model may stand behind the last byte. Forms are read by the platform's
 * own parser, which Node keeps in step with the standard; what goes upstream is written anew from what it read (`forward.ts`), so
 * that no upstream finds another model in the same bytes.
 */
import type { IncomingMessage } from 'node:http'
import { badRequest, type Told, tooBig } from './failures.ts'
import type { Endpoint, Json } from './provider.ts'

export interface Brought {
  readonly body: Json
  readonly form?: FormData
  readonly bytes?: Buffer
}

export async function readBody(
  request: IncomingMessage,
  takes: Endpoint['takes'],
  most: number,
): Promise<Brought | Told> {
  const type = request.headers['content-type'] ?? ''
  if (takes === 'form' && !/^multipart\/form-data\b/i.test(type))
    return badRequest('media_type', 'send a form: content-type multipart/form-data')
  if (takes !== 'form' && takes !== 'any' && !isJson(type))
    return badRequest('media_type', 'send JSON: content-type application/json')
  const packed = request.headers['content-encoding'] ?? 'identity'
  if (packed.toLowerCase() !== 'identity')
    return badRequest('media_type', 'send the body as it is: without content-encoding')
  const bytes = await allOf(request, most)
  if (bytes === undefined) return tooBig(`a body is at most ${most} bytes`)
  if (takes === 'form') return formIn(bytes, type)
  const json = isJson(type) ? jsonIn(bytes) : undefined
  // JSON goes upstream as it was read, so that nobody finds another value under a name that stands there twice.
  if (takes === 'any') return json === undefined ? { body: {}, bytes } : { body: json }
  return json === undefined ? badRequest('invalid', 'the body is not a JSON object') : { body: json }
}

const isJson = (type: string): boolean => /^application\/json\b/i.test(type)

/** Undefined where it is more than it may be. */
export async function allOf(request: IncomingMessage, most: number): Promise<Buffer | undefined> {
  const pieces: Buffer[] = []
  let size = 0
  if (Number(request.headers['content-length'] ?? 0) > most) return undefined
  for await (const piece of request) {
    size += (piece as Buffer).length
    if (size > most) return undefined
    pieces.push(piece as Buffer)
  }
  return Buffer.concat(pieces)
}

/** Undefined where it is no object. */
export function jsonIn(bytes: Buffer | string): Json | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
  } catch {
    return undefined
  }
}

/** Fields as they are written; of a file its size alone. A name that comes twice is a list. */
async function formIn(bytes: Buffer, type: string): Promise<Brought | Told> {
  if (hasTooMany(bytes, type)) return badRequest('invalid', `a form has at most ${MAX_PARTS} fields`)
  const form = await new Response(bytes as Uint8Array<ArrayBuffer>, { headers: { 'content-type': type } })
    .formData()
    .catch(() => undefined)
  if (form === undefined) return badRequest('invalid', 'the body is not a form')
  const values = new Map<string, unknown[]>()
  for (const [name, value] of form)
    values.getOrInsertComputed(name, () => []).push(typeof value === 'string' ? value : { size: value.size })
  const body = Object.fromEntries([...values].map(([name, all]) => [name, all.length === 1 ? all[0] : all]))
  return { body, form }
}

/** The parser takes 3 µs for each part, in one go: a million of them would hold everybody else up. */
const MAX_PARTS = 200

function hasTooMany(bytes: Buffer, type: string): boolean {
  const [, quoted, bare] = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i.exec(type) ?? []
  const mark = `--${quoted ?? bare ?? ''}`
  let parts = 0
  for (let at = bytes.indexOf(mark); at !== -1; at = bytes.indexOf(mark, at + mark.length))
    if (++parts > MAX_PARTS + 1) return true
  return false
}
