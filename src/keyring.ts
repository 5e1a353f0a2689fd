/** Keys by their secrets, as the engine knows them, kept for a second at most, so that a busy key costs nothing. */
import { hash, timingSafeEqual } from 'node:crypto'
import type { Engine } from './engine.ts'
import { SluiceError } from './errors.ts'
import type { KeyView } from './wire.ts'

/** The key behind a call, as far as a door needs it. */
export type Key = Pick<KeyView, 'id' | 'role' | 'account' | 'subject'>

/** How long an answer of the engine may be used again: a key revoked on another node is refused after that. */
const KEPT_MS = 1000
const KEPT_AT_MOST = 10_000

export interface Keyring {
  /** The key whose secret this is. Synchronous where the answer is known. Rejects with `unauthorized`. */
  key(secret: string): Key | Promise<Key>
  /** Forgets what the engine said: after a revocation, or a jump of the clock. */
  forget(): void
}

/** `adminKey` is one of role admin that is not kept in the store. */
export function createKeyring(engine: Engine, adminKey?: string): Keyring {
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
    key(secret) {
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

/** The secret of `Authorization: Bearer KEY`. Throws `unauthorized`. */
export function bearer(authorization: string | undefined): string {
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
