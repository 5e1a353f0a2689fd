/** Policies and keys: what `@system` keeps. */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { SluiceError } from '../errors.ts'
import {
  type Cell,
  type Key,
  type KeyCell,
  type PolicyCell,
  SYSTEM,
  type SystemCell,
} from '../kernel/cells.ts'
import { createKey, publishPolicy, revokeKey } from '../kernel/system.ts'
import { checkPolicy, compilePolicy } from '../policy/compile.ts'
import type { Millis } from '../units.ts'
import type {
  Complaint,
  KeyMade,
  KeyRequest,
  KeyView,
  List,
  PageQuery,
  PolicyCheck,
  PolicyVersionView,
  PolicyView,
} from '../wire.ts'
import type { Caller } from './contract.ts'
import { type Core, contextOf, sha256 } from './core.ts'
import { accountId, id, instant, onlyFields, subject } from './intake.ts'
import { listOf, numberAfter, pageOf } from './paging.ts'
import { keyView, policyVersionView } from './present.ts'

/** Reads cells of `@system` in one transaction, so that they belong together. */
function readSystem(core: Core, keys: readonly Key[]): Promise<ReadonlyMap<Key, Cell | null>> {
  return core.run(SYSTEM, keys, (cells) => ({
    result: { ok: cells as ReadonlyMap<Key, Cell | null> },
    writes: [],
    entries: [],
  }))
}

async function activeVersion(core: Core): Promise<number> {
  const cells = await readSystem(core, ['account'])
  return (cells.get('account') as SystemCell | null)?.activePolicy ?? 0
}

export async function policyView(core: Core, wanted: number | undefined): Promise<PolicyView> {
  const active = await activeVersion(core)
  const version = wanted ?? active
  const cell =
    version < 1
      ? null
      : ((await readSystem(core, [`policy:${version}`])).get(`policy:${version}`) as PolicyCell | null)
  if (cell === null) {
    throw new SluiceError(
      'not_found',
      wanted === undefined ? 'no policy has been published yet' : `there is no policy version ${wanted}`,
      {
        path: '/version',
        remedy: active === 0 ? 'publish one: PUT /v1/policy' : `versions run from 1 to ${active}`,
      },
    )
  }
  return { ...policyVersionView(cell, active), text: cell.text, warnings: check(cell.text).warnings }
}

export async function policyVersions(core: Core, query: PageQuery): Promise<List<PolicyVersionView>> {
  const { limit, after } = pageOf(query)
  const active = await activeVersion(core)
  const newest = numberAfter(after) ?? active + 1
  const keys: Key[] = []
  for (let version = newest - 1; version >= 1 && keys.length <= limit; version--)
    keys.push(`policy:${version}`)
  const cells = keys.length === 0 ? new Map() : await readSystem(core, keys)
  const found = keys.map((key) => cells.get(key) as PolicyCell)
  return listOf(
    found,
    limit,
    (cell) => String(cell.version),
    (cell) => policyVersionView(cell, active),
  )
}

export function check(text: string): PolicyCheck {
  const { complaints, warnings } = checkPolicy(text)
  return {
    valid: complaints.length === 0,
    complaints: complaints as readonly Complaint[],
    warnings: warnings as readonly Complaint[],
  }
}

export async function publish(
  core: Core,
  text: string,
  ifVersion: number | undefined,
  caller: Caller,
): Promise<PolicyView> {
  // Refused with every complaint before anything is written.
  compilePolicy(0, text)
  const context = contextOf(caller)
  const cell = await core.run(SYSTEM, ['account'], (cells, env) =>
    publishPolicy(cells, env, context, text, ifVersion),
  )
  return { ...policyVersionView(cell, cell.version), text: cell.text, warnings: check(text).warnings }
}

// --- keys

const SECRET = /^sk_([A-Za-z0-9_-]{32})_([!-~]{1,128})$/

export async function makeKey(core: Core, request: KeyRequest, caller: Caller): Promise<KeyMade> {
  onlyFields(request, ['id', 'role', 'account', 'subject', 'expires_at'])
  const { role } = request
  if (!['admin', 'meter', 'read', 'call'].includes(role)) {
    throw new SluiceError('invalid', '/role: not a role', {
      path: '/role',
      remedy: 'send admin, meter, read or call',
    })
  }
  if (role === 'call' && request.account === undefined) {
    throw new SluiceError('invalid', '/account: missing, and a key of role call stands for one', {
      path: '/account',
      remedy: 'name the account that pays for what is called with it',
    })
  }
  const keyId = id(request.id, '/id')
  const secret = `sk_${randomBytes(24).toString('base64url')}_${keyId}`
  const made = {
    id: keyId,
    role,
    secretHash: sha256(secret),
    ...(request.account === undefined ? {} : { account: accountId(request.account, '/account') }),
    ...(request.subject === undefined ? {} : { subject: subject(request.subject) }),
    expiresAt: request.expires_at === undefined ? null : instant(request.expires_at, '/expires_at'),
  }
  const context = contextOf(caller)
  const cell = await core.run(SYSTEM, ['account', `key:${keyId}`], (cells, env) =>
    createKey(cells, env, context, made),
  )
  return { ...keyView(cell), secret }
}

export async function listKeys(core: Core, query: PageQuery): Promise<List<KeyView>> {
  const { limit, after } = pageOf(query)
  const page = await core.store.cells(SYSTEM, 'key:', {
    limit: limit + 1,
    ...(after === undefined ? {} : { after }),
  })
  return listOf(
    page,
    limit,
    ({ key }) => key,
    ({ cell }) => keyView(cell as KeyCell),
  )
}

export async function endKey(core: Core, keyId: string, caller: Caller): Promise<KeyView> {
  const known = id(keyId, '/id')
  const context = contextOf(caller)
  return keyView(
    await core.run(SYSTEM, ['account', `key:${known}`], (cells, env) =>
      revokeKey(cells, env, context, known),
    ),
  )
}

/** Also while the clock is not trusted: someone must be let in to accept it. */
async function keyNow(
  core: Core,
  key: Key,
): Promise<{ readonly cell: KeyCell | null; readonly now: Millis }> {
  try {
    return await core.run(SYSTEM, [key], (cells, env) => ({
      result: { ok: { cell: cells.get(key) as KeyCell | null, now: env.now } },
      writes: [],
      entries: [],
    }))
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code !== 'clock_suspect') throw error
    const [found] = await core.store.cells(SYSTEM, key, { limit: 1 })
    return { cell: found?.key === key ? (found.cell as KeyCell) : null, now: await core.store.now() }
  }
}

/** The key whose secret this is, if it is valid now. */
export async function authenticate(core: Core, secret: string): Promise<KeyView | undefined> {
  const keyId = SECRET.exec(secret)?.[2]
  if (keyId === undefined) return undefined
  const key: Key = `key:${keyId}`
  const { cell, now } = await keyNow(core, key)
  if (cell === null || cell.revokedAt !== null || (cell.expiresAt !== null && cell.expiresAt <= now))
    return undefined
  const same = timingSafeEqual(Buffer.from(sha256(secret)), Buffer.from(cell.secretHash))
  return same ? keyView(cell) : undefined
}
