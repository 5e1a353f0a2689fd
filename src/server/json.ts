/**
 * Bodies as JSON, strictly: UTF-8, one value, and no name that could reach a prototype. The refusal says where.
 */
import { isUtf8 } from 'node:buffer'
import type { FastifyBodyParser, FastifyInstance } from 'fastify'
import { ERRORS, SluiceError } from '../errors.ts'
import { JSON_WANTED, pointerPart } from './problem.ts'

/** A change of what stands (RFC 7396): the body of a PATCH, and of no other call. */
export const MERGE_PATCH = 'application/merge-patch+json'

/** Takes the place of the framework's parser for `application/json`. An empty body is no body. */
export function parseJsonStrictly(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error') as unknown as (
    request: unknown,
    body: string,
    done: (error: Error | null, value?: unknown) => void,
  ) => void
  const parser: FastifyBodyParser<Buffer> = (request, body, done) => {
    if (body.length === 0) return done(null, undefined)
    const text = utf8(body)
    parse(request, text, (error, value) => done(error === null ? null : whyNot(text), value))
  }
  app.removeContentTypeParser(['application/json', 'text/plain'])
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, parser)
  const patchParser: FastifyBodyParser<Buffer> = (request, body, done) =>
    request.method === 'PATCH' ? parser(request, body, done) : done(notJson())
  app.addContentTypeParser(MERGE_PATCH, { parseAs: 'buffer' }, patchParser)
}

const notJson = (): SluiceError =>
  new SluiceError('media_type', ERRORS.media_type.says, { path: '/content-type', remedy: JSON_WANTED })

/** A body as text. Bytes that are not UTF-8 would otherwise become another text without notice. */
export function utf8(body: Buffer): string {
  if (isUtf8(body)) return body.toString('utf8')
  throw new SluiceError('invalid', 'The body is not UTF-8.', {
    path: '',
    remedy: 'Encode the body as UTF-8.',
  })
}

/** Why a text was refused: it is no JSON, or it has a forbidden name, told by its path. */
function whyNot(text: string): SluiceError {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    // The platform's message quotes the body; only the position is passed on.
    const position = /at position \d+(?: \(line \d+ column \d+\))?/.exec((error as Error).message)?.[0]
    return new SluiceError(
      'invalid',
      `The body is not JSON${position === undefined ? '' : ` ${position}`}.`,
      {
        path: '',
        remedy: 'Send one JSON value, complete and in UTF-8.',
      },
    )
  }
  return new SluiceError('invalid', 'The body has a name that is reserved by the platform.', {
    path: pathOfReserved(value) ?? '',
    remedy: 'Leave out `__proto__`, and `prototype` inside `constructor`.',
  })
}

function pathOfReserved(root: unknown): string | undefined {
  const waiting: [value: unknown, path: string][] = [[root, '']]
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [value, path] = next
    if (typeof value !== 'object' || value === null) continue
    for (const [name, inner] of Object.entries(value)) {
      const here = `${path}/${pointerPart(name)}`
      if (name === '__proto__') return here
      if (name === 'constructor' && inner !== null && Object.hasOwn(Object(inner), 'prototype'))
        return `${here}/prototype`
      waiting.push([inner, here])
    }
  }
  return undefined
}
