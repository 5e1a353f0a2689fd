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
  const bytes = await allOf(request, most)
  if (bytes === undefined) return tooBig(`a body is at most ${most} bytes`)
  if (takes === 'form') return formIn(bytes, type)
  const json = isJson(type) ? jsonIn(bytes) : undefined
  if (takes === 'any') return { body: json ?? {}, bytes }
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

function jsonIn(bytes: Buffer): Json | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
  } catch {
    return undefined
  }
}

/** Fields as they are written; of a file its size alone. A name that comes twice is a list. */
async function formIn(bytes: Buffer, type: string): Promise<Brought | Told> {
  const form = await new Response(bytes as Uint8Array<ArrayBuffer>, { headers: { 'content-type': type } })
    .formData()
    .catch(() => undefined)
  if (form === undefined) return badRequest('invalid', 'the body is not a form')
  const body: Record<string, unknown> = {}
  for (const name of new Set(form.keys())) {
    const values = form
      .getAll(name)
      .map((value) => (typeof value === 'string' ? value : { size: value.size }))
    body[name] = values.length === 1 ? values[0] : values
  }
  return { body, form }
}
