/** Tokens of language models, as far as they can be told before and after a call. */

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
