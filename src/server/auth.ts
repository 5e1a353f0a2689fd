/**
 * Who calls, and what they may: `Authorization: Bearer KEY`. A key's role says which calls, its account and subject say
 * for whom. The engine knows the keys; what it answers is kept for a second at most, so that a busy key costs nothing.
 */
import { hash, timingSafeEqual } from 'node:crypto'
import type { Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import type { KeyView, Role, Subject } from '../wire.ts'
import { pointerPart } from './problem.ts'

/** The key behind a call, as far as the door needs it. */
export type Key = Pick<KeyView, 'id' | 'role' | 'account' | 'subject'>

/**
 * Over what a call looks. `open`: no key is needed. `all`: more than one account, so a key bound to an account or a
 * subject may not. `account`: the account in the path, whole, so a key bound to a subject may not. `subject`: the
 * account in the path or body, narrowed to the key's subject.
 */
export type Scope = 'open' | 'all' | 'account' | 'subject'

/** How long an answer of the engine may be used again: a key revoked on another node is refused after that. */
const KEPT_MS = 1000
const KEPT_AT_MOST = 10_000

export interface Auth {
  /** The key of a call, by its Authorization header. Synchronous where the answer is known. Rejects with `unauthorized`. */
  key(authorization: string | undefined): Key | Promise<Key>
  /** Forgets what the engine said: after a revocation, or a jump of the clock. */
  forget(): void
}

export function createAuth(engine: Engine, adminKey?: string): Auth {
  const admin =
    adminKey === undefined
      ? undefined
      : { digest: digest(adminKey), key: { id: 'admin', role: 'admin' } as Key }
  const kept = new Map<string, { key: Key | Promise<Key>; until: number }>()

  async function ask(secret: string, secretHash: string): Promise<Key> {
    const slot = { key: undefined as unknown as Key | Promise<Key>, until: performance.now() + KEPT_MS }
    const answer = engine.authenticate(secret).then((key) => {
      if (key === undefined) throw unauthorized('The key is unknown, expired or revoked.')
      slot.key = key
      return key
    })
    slot.key = answer
    if (kept.size >= KEPT_AT_MOST) kept.clear()
    kept.set(secretHash, slot)
    try {
      return await answer
    } catch (error) {
      // Refusals are not kept: a key that is made a moment later is valid at once.
      if (kept.get(secretHash) === slot) kept.delete(secretHash)
      throw error
    }
  }

  return {
    key(authorization) {
      const secret = bearer(authorization)
      const secretHash = digest(secret)
      // Digests are compared, so neither the length of the admin key nor any of its characters shows in the time.
      if (admin !== undefined && timingSafeEqual(Buffer.from(secretHash), Buffer.from(admin.digest)))
        return admin.key
      const slot = kept.get(secretHash)
      return slot !== undefined && performance.now() < slot.until ? slot.key : ask(secret, secretHash)
    },
    forget: () => kept.clear(),
  }
}

function digest(secret: string): string {
  return hash('sha256', secret)
}

function bearer(authorization: string | undefined): string {
  if (authorization === undefined) throw unauthorized('There is no key.')
  const match = /^bearer +([\x21-\x7e]{1,512})$/i.exec(authorization)
  if (match?.[1] === undefined)
    throw unauthorized('The Authorization header is not of the form that is read here.')
  return match[1]
}

function unauthorized(message: string): SluiceError {
  return new SluiceError('unauthorized', message, {
    path: '/authorization',
    remedy: 'Send the header `Authorization: Bearer KEY` with a key that is valid now.',
  })
}

export function forbidden(message: string, path: string, remedy: string): SluiceError {
  return new SluiceError('forbidden', message, { path, remedy })
}

/** Refuses a call that the key's role or binding does not allow. `account` is the one in the path, if there is one. */
export function permit(key: Key, roles: readonly Role[], scope: Scope, account: string | undefined): void {
  if (!roles.includes(key.role)) {
    throw forbidden(
      `A key of role ${key.role} may not do this.`,
      '/authorization',
      `Use a key of role ${roles.join(' or ')}.`,
    )
  }
  if (scope === 'all' && (key.account !== undefined || key.subject !== undefined)) {
    throw forbidden(
      'This reaches beyond the account of the key.',
      '/authorization',
      'Use a key that is not bound to an account.',
    )
  }
  if (scope === 'account' && key.subject !== undefined) {
    throw forbidden(
      'This shows more than the subject of the key.',
      '/authorization',
      'Use a key that is not bound to a subject.',
    )
  }
  if (account !== undefined) checkAccount(key, account, '/id')
}

/** Refuses another account than the key's. */
export function checkAccount(key: Key, account: string, path = '/account'): void {
  if (key.account === undefined || key.account === account) return
  throw forbidden('The key is bound to another account.', path, `Name the account ${key.account}.`)
}

/**
 * A subject as the key binds it: dimensions that the key fixes are filled in, another value for one is refused.
 * `path` is where the subject stands in the input.
 */
export function bindSubject(key: Key, subject: Subject | undefined, path = '/subject'): Subject | undefined {
  if (key.subject === undefined) return subject
  for (const [dimension, value] of Object.entries(key.subject)) {
    if (subject === undefined || !Object.hasOwn(subject, dimension) || subject[dimension] === value) continue
    throw forbidden(
      `The key is bound to another ${dimension}.`,
      `${path}/${pointerPart(dimension)}`,
      `Leave it out, or name ${value}.`,
    )
  }
  return { ...subject, ...key.subject }
}

/** Whether a subject has all that the key fixes. */
export function owns(key: Key, subject: Subject): boolean {
  return Object.entries(key.subject ?? {}).every(
    ([dimension, value]) => Object.hasOwn(subject, dimension) && subject[dimension] === value,
  )
}
