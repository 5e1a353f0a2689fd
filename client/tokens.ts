/** Tokens of language models, as far as they can be told before and after a call. */
import type { Lease } from './lease.ts'

/** Tokens of language models, disjoint as rate cards price them: what was read from a cache is not input as well. */
export type Tokens = {
  readonly input_tokens: number
  readonly cached_input_tokens: number
  readonly output_tokens: number
}

/** Roughly: English text has about four characters a token, other scripts fewer. */
const CHARACTERS_A_TOKEN = 4

export const tokensOfText = (characters: number): number => Math.ceil(characters / CHARACTERS_A_TOKEN)

/** What a call will use, where nobody knows yet: its input by length, its output by the bound that it gives. */
export function estimateTokens(input: unknown, maxOutputTokens = 1_000): Tokens {
  const text = typeof input === 'string' ? input : (JSON.stringify(input) ?? '')
  return { input_tokens: tokensOfText(text.length), cached_input_tokens: 0, output_tokens: maxOutputTokens }
}

/**
 * What a provider tells of a call, made disjoint: providers count what was read from a cache as input too. What it does not tell, or tells
 * as something that is no count, is left out, and counts as estimated.
 */
export function tokensTold(told: {
  readonly input?: unknown
  readonly cached?: unknown
  readonly output?: unknown
}): Partial<Tokens> {
  const input = countOf(told.input)
  const output = countOf(told.output)
  const cached = Math.min(countOf(told.cached) ?? 0, input ?? 0)
  return {
    ...(input !== undefined && { input_tokens: input - cached, cached_input_tokens: cached }),
    ...(output !== undefined && { output_tokens: output }),
  }
}

/** What is not told counts as estimated, and the charge says so. */
export function reportTokens(lease: Lease, told: Partial<Tokens>): void {
  const isWhole = told.input_tokens !== undefined && told.output_tokens !== undefined
  lease.report({ ...told }, { estimated: !isWhole })
}

const countOf = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined
