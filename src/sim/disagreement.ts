/** What the auditor throws where an answer is not what its books say. */
import { isDeepStrictEqual } from 'node:util'
import { told } from './naive-prices.ts'

export class Disagreement extends Error {
  override readonly name = 'Disagreement'
}

/** What an operation came to: an answer, or an error's code and the first answer that a conflict carries. */
export type Told<T> = { readonly answer: T } | { readonly code: string; readonly first?: unknown }

export function expectSame(actual: unknown, expected: unknown, what: string): void {
  if (isDeepStrictEqual(actual, expected)) return
  const show = (value: unknown): string =>
    JSON.stringify(value, (_, one) => (typeof one === 'bigint' ? told(one) : one)) ?? 'nothing'
  throw new Disagreement(`${what}: the engine says ${show(actual)}, the books say ${show(expected)}`)
}

export function expectThat(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Disagreement(what)
}

export function expectCode(told: Told<unknown>, code: string | undefined, what: string): void {
  expectSame('code' in told ? told.code : 'an answer', code ?? 'an answer', what)
}

/** The answer, where there must be one. */
export function answerOf<T>(told: Told<T>, what: string): T {
  expectThat('answer' in told, `${what} failed: ${JSON.stringify(told)}`)
  return told.answer
}

/** What is compared of a repeat: not when, not how long, not by which endpoint. */
export function meaningOf(op: object): unknown {
  const { ttl_ms, started_at, duration_ms, endpoint, at, dry_run, ...meaning } = op as Record<string, unknown>
  return meaning
}

export const isSameMeaning = (a: object, b: object): boolean => isDeepStrictEqual(meaningOf(a), meaningOf(b))
