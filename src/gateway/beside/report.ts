/**
 * `POST /forward-auth/usage`: what stands behind a proxy tells what a request that was held has used, in its provider's own
 * words or as quantities. Only keys that stand for no account may: a customer's own would settle its own work for nothing.
 */
import type { IncomingMessage } from 'node:http'
import type { Engine } from '../../engine.ts'
import { SluiceError } from '../../errors.ts'
import { bearer, type Keyring } from '../../keyring.ts'
import type { ChargeAnswer, QuantitiesIn } from '../../wire.ts'
import type { Json, Meter } from '../provider.ts'
import { PROVIDERS } from '../providers.ts'

export interface Report {
  readonly engine: Engine
  readonly keyring: Keyring
  readonly authorization: string | undefined
  readonly body: Json
}

const MOST_BYTES = 64 * 1024

export async function readReport(request: IncomingMessage): Promise<Json> {
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? ''))
    throw new SluiceError('media_type', 'send JSON: content-type application/json')
  const pieces: Buffer[] = []
  let size = 0
  // Not destroyed where it is too long: the answer goes the same way.
  for await (const piece of request.iterator({ destroyOnReturn: false })) {
    size += (piece as Buffer).length
    if (size > MOST_BYTES) throw new SluiceError('too_big', `a report is at most ${MOST_BYTES} bytes`)
    pieces.push(piece as Buffer)
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(pieces).toString('utf8'))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json
  } catch {}
  throw invalid('', 'the body is not a JSON object', 'send one')
}

const FIELDS = ['account', 'request_id', 'provider', 'endpoint', 'usage', 'quantities']

export async function settleReported({
  engine,
  keyring,
  authorization,
  body,
}: Report): Promise<ChargeAnswer> {
  const key = await keyring.key(bearer(authorization))
  if (key.role === 'read' || key.account !== undefined)
    throw new SluiceError('forbidden', 'Usage is told with a key of role meter that stands for no account.')
  const stranger = Object.keys(body).find((name) => !FIELDS.includes(name))
  if (stranger !== undefined) throw invalid(`/${stranger}`, 'no such field', `send ${FIELDS.join(', ')}`)
  // The engine looks at their types, as it does for everybody.
  const { account, request_id } = body as { account: string; request_id: string }
  return engine.settle(
    { account, request_id, endpoint: 'forward_auth', usage: usedBy(body) },
    { actor: key.id, subject: key.subject },
  )
}

function usedBy({ provider = 'openai', endpoint, usage, quantities }: Json): QuantitiesIn {
  if (quantities !== undefined) {
    if (usage !== undefined) throw invalid('/usage', 'given beside quantities', 'send one of both')
    return quantities as QuantitiesIn
  }
  const used = meterOf(provider, endpoint).usage({ usage }, {})
  if (used === undefined) throw invalid('/usage', 'not what this provider tells', 'send it as it came')
  return used
}

/** Each endpoint of a provider may tell usage in its own way; where none is named, its first does. */
function meterOf(provider: unknown, endpoint: unknown): Meter {
  const known = Object.values(PROVIDERS).find(({ name }) => name === provider)
  if (known === undefined)
    throw invalid('/provider', 'no such provider', `send one of ${Object.keys(PROVIDERS).join(', ')}`)
  const found = known.endpoints.find(
    ({ name, meter }) => meter !== undefined && (endpoint === undefined || name === endpoint),
  )
  if (found?.meter === undefined) throw invalid('/endpoint', 'nothing is metered there', 'name one that is')
  return found.meter
}

const invalid = (path: string, message: string, remedy: string): SluiceError =>
  new SluiceError('invalid', `${path}: ${message}; ${remedy}`, { path, remedy })
