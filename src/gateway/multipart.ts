/** Bodies of forms with files. Node's own reader, which `fetch` brings: it keeps a file in memory, as `max_body_mb` bounds it. */
import type { IncomingMessage } from 'node:http'
import { badRequest, type Told, tooBig } from './failures.ts'
import { BadBody, type Json } from './provider.ts'

export interface Form {
  readonly form: FormData
  /** Its fields that are no files. */
  readonly fields: Json
}
export interface SentBody {
  readonly type: string
  readonly bytes: Buffer
}

export const isForm = (type: string): boolean => /^multipart\/form-data\b/i.test(type)
export const isJsonType = (type: string): boolean => /^application\/(?:[\w.-]+\+)?json\b/i.test(type)

/** The whole of a body, or what is wrong with its size. */
export async function bytesOf(request: IncomingMessage, most: number): Promise<Buffer | Told> {
  const refused = tooBig(`a body is at most ${most} bytes`)
  if (Number(request.headers['content-length'] ?? 0) > most) return refused
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of request) {
    size += (piece as Buffer).length
    if (size > most) return refused
    pieces.push(piece as Buffer)
  }
  return Buffer.concat(pieces)
}

/** Throws `BadBody`. */
export async function formOf({ type, bytes }: SentBody): Promise<Form> {
  try {
    const form = await new Response(new Uint8Array(bytes), { headers: { 'content-type': type } }).formData()
    const fields = [...form].filter(([, value]) => typeof value === 'string')
    const twice = fields.find(([name], place) => fields.findIndex(([other]) => other === name) !== place)
    // Whoever reads the other of the two would read another order than was held for.
    if (twice !== undefined) throw new BadBody(`/${twice[0]}`, 'it is there twice')
    return { form, fields: Object.fromEntries(fields) }
  } catch (error) {
    if (error instanceof BadBody) throw error
    throw new BadBody('', 'the body is not a form as its content-type tells')
  }
}

/** The form as a body again, with other values in some of its fields. */
export async function withFields(
  { form }: Form,
  changed: Readonly<Record<string, string>>,
): Promise<SentBody> {
  for (const [name, value] of Object.entries(changed)) form.set(name, value)
  const written = new Response(form)
  return {
    type: written.headers.get('content-type') as string,
    bytes: Buffer.from(await written.arrayBuffer()),
  }
}

/** The fields of a body that is JSON or a form, and how it goes on with others in their place. */
export interface Fields {
  readonly fields: Json
  with(changed: Readonly<Record<string, string>>): Promise<SentBody>
}

/** Throws `BadBody`. */
export async function fieldsOf(sent: SentBody): Promise<Fields | Told> {
  if (isForm(sent.type)) {
    const form = await formOf(sent)
    return {
      fields: form.fields,
      // Written anew in any case: what goes on is what was read.
      with: (changed) => withFields(form, changed),
    }
  }
  if (!isJsonType(sent.type)) return badRequest('media_type', 'send JSON or a form with files')
  let value: unknown
  try {
    value = JSON.parse(sent.bytes.toString('utf8'))
  } catch {}
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return badRequest('invalid', 'the body is not a JSON object')
  const fields = value as Json
  return {
    fields,
    with: async (changed) => ({
      type: 'application/json',
      bytes: Buffer.from(JSON.stringify({ ...fields, ...changed })),
    }),
  }
}
