import type { Micros, Millis } from '../units.ts'
import type { Attributes } from './price.ts'

export const GRANT_KINDS = ['free', 'promo', 'plan', 'enterprise', 'purchased', 'adjustment'] as const
export type GrantKind = (typeof GRANT_KINDS)[number]
export const DEFAULT_PRIORITY = 100

/** Who acts inside an account: dimension → value. */
export type Subject = Attributes

/** An amount of credits, as it stands in the account's cell. `remaining` includes `held`. */
export interface Grant {
  readonly id: string
  readonly kind: GrantKind
  readonly amount: Micros
  remaining: Micros
  held: Micros
  readonly priority: number
  readonly startsAt: Millis
  readonly expiresAt: Millis | null
  /** Names or patterns with a trailing `*`; absent is every feature. */
  readonly features?: readonly string[]
  /** For each dimension named, the values it is limited to; absent is everyone. */
  readonly subjects?: Readonly<Record<string, readonly string[]>>
  /** What is left has been taken back or has run out; the grant stays only while something is held from it. */
  ended?: 'expired' | 'revoked'
}

/** In place of a feature: every grant that is active, whatever its scope. */
export const EVERY_FEATURE = '*'

/** Whether a grant may pay at this instant for this feature and subject. */
export function usable(grant: Grant, nowAt: Millis, feature: string, subject: Subject): boolean {
  if (grant.ended !== undefined || nowAt < grant.startsAt) return false
  if (grant.expiresAt !== null && nowAt >= grant.expiresAt) return false
  if (
    feature !== EVERY_FEATURE &&
    grant.features !== undefined &&
    !grant.features.some((pattern) => featureMatches(pattern, feature))
  )
    return false
  return feature === EVERY_FEATURE || grant.subjects === undefined || subjectMatches(grant.subjects, subject)
}

/** `codex.*` matches every feature that begins with `codex.`; `*` matches all. */
export function featureMatches(pattern: string, feature: string): boolean {
  return pattern.endsWith('*') ? feature.startsWith(pattern.slice(0, -1)) : pattern === feature
}

function subjectMatches(wanted: Readonly<Record<string, readonly string[]>>, subject: Subject): boolean {
  for (const dimension of Object.keys(wanted)) {
    const value = subject[dimension]
    if (value === undefined || !wanted[dimension]?.includes(value)) return false
  }
  return true
}

/** The grants of these kinds in the order they burn: priority, earliest expiry, kind in the step's order, start, id. */
export function burnOrder(grants: readonly Grant[], kinds: readonly GrantKind[]): Grant[] {
  const chosen = grants.filter((grant) => kinds.includes(grant.kind))
  if (chosen.length < 2) return chosen
  return chosen.sort(
    (a, b) =>
      a.priority - b.priority ||
      (a.expiresAt ?? Infinity) - (b.expiresAt ?? Infinity) ||
      kinds.indexOf(a.kind) - kinds.indexOf(b.kind) ||
      a.startsAt - b.startsAt ||
      (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
  )
}
