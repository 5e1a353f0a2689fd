/**
 * Ids of what an upstream keeps, as callers know them. All of them share the upstream's key, so that the id alone would open what any
 * of them has stored there. A caller is given `<the upstream's id>.<tags>` instead: one tag for the account that it was made for, and
 * one for each dimension of the subject that the key stood for. Tags are HMAC-SHA-256 (RFC 2104), cut to 96 bits. So nothing is
 * stored: an id is good in the first event of a stream, on every node, for as long as the upstream keeps what it names.
 */
import { createHmac, randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'
import type { Subject } from '../wire.ts'
import type { UpstreamConfig } from './config.ts'

export interface Owner {
  readonly account: string
  readonly subject: Subject | undefined
}
type Keeper = Pick<UpstreamConfig, 'name' | 'idKey'>

export interface Ids {
  seal(id: string, upstream: Keeper, owner: Owner): string
  /** As the upstream knows it; undefined where it was given to somebody else, or to nobody. */
  open(sealed: string, upstream: Keeper, owner: Owner): string | undefined
}

/** Of an HMAC, in base64url: 96 bits. */
const TAG = 16

export function createIds(): Ids {
  const secrets = new Map<string, Buffer>()

  function secretOf({ name, idKey }: Keeper): Buffer {
    let secret = secrets.get(name)
    if (secret === undefined) {
      // Slow on purpose, and once: whoever has a tag must not be able to guess a short key of an upstream by trying.
      secret = idKey === undefined ? randomBytes(32) : scryptSync(idKey, 'sluice gateway ids', 32)
      secrets.set(name, secret)
    }
    return secret
  }

  const tag = (upstream: Keeper, of: readonly string[]): string =>
    createHmac('sha256', secretOf(upstream))
      .update(JSON.stringify([upstream.name, ...of]))
      .digest('base64url')
      .slice(0, TAG)
  const ofAccount = (id: string, upstream: Keeper, { account }: Owner): string =>
    tag(upstream, ['account', account, id])
  const ofSubject = (id: string, upstream: Keeper, { account, subject = {} }: Owner): string[] =>
    Object.entries(subject).map(([dimension, value]) =>
      tag(upstream, ['subject', account, dimension, value, id]),
    )

  return {
    seal: (id, upstream, owner) =>
      `${id}.${ofAccount(id, upstream, owner)}${ofSubject(id, upstream, owner).join('')}`,
    open(sealed, upstream, owner) {
      const at = sealed.lastIndexOf('.')
      const id = sealed.slice(0, Math.max(at, 0))
      const given = sealed.slice(at + 1).match(/.{16}/gs) ?? []
      const [account = '', ...subjects] = given
      if (id === '' || !isSame(account, ofAccount(id, upstream, owner))) return undefined
      // A key that stands for the account as a whole knows what its subjects have made.
      return ofSubject(id, upstream, owner).every((own) => subjects.some((one) => isSame(one, own)))
        ? id
        : undefined
    },
  }
}

function isSame(a: string, b: string): boolean {
  const [one, other] = [Buffer.from(a), Buffer.from(b)]
  return one.length === other.length && timingSafeEqual(one, other)
}
