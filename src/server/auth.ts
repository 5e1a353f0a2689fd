/**
 * Who calls, and what they may: `Authorization: Bearer KEY`. A key's role says which calls, its account and subject say
 * for whom.
 */
import type { Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { bearer, createKeyring, type Key } from '../keyring.ts'
import type { Role, Subject } from '../wire.ts'
import { pointerPart } from './problem.ts'

/**
 * Over what a call looks. `open`: no key is needed. `all`: more than one account, so a key bound to an account or a
 * subject may not. `account`: the account in the path, whole, so a key bound to a subject may not. `subject`: the
 * account in the path or body, narrowed to the key's subject.
 */
export type Scope = 'open' | 'all' | 'account' | 'subject'

export interface Auth {
  /** The key of a call, by its Authorization header. Synchronous where the answer is known. Rejects with `unauthorized`. */
  key(authorization: string | undefined): Key | Promise<Key>
  /** Forgets what the engine said: after a revocation, or a jump of the clock. */
  forget(): void
}

export function createAuth(engine: Engine, adminKey?: string): Auth {
  const keyring = createKeyring(engine, adminKey)
  return { key: (authorization) => keyring.key(bearer(authorization)), forget: keyring.forget }
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
