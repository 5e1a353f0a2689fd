/**
 * A language model of the plainest kind: which word followed which two words in a book. It is small enough to be trained while
 * a server starts, and real enough that what it says is never twice the same, and takes as many tokens as it takes.
 */

/** Longer words are several tokens, as with tokenizers of larger models. */
const PIECE_CHARACTERS = 7
/** Sentences of an answer that nobody bounds. */
const MOST_SENTENCES = 9

export interface Prompted {
  readonly prompt: string
  /** The same seed and the same prompt give the same answer. */
  readonly seed: number
  /** It never comes to an end by itself. */
  readonly isEndless?: boolean
}

export interface Model {
  readonly vocabulary: number
  /** Tokens without end in sight, but for the model's own. */
  generate(prompted: Prompted): Generator<string, void>
}

/** A word with the space before it, a number, punctuation, or white space. */
const WORDS = / ?[\p{L}\p{M}'’]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]|\s+/gu

const wordsOf = (text: string): string[] => text.match(WORDS) ?? []

/** Text as the tokens it is counted in; joined they are the text. */
export function tokensOf(text: string): string[] {
  return wordsOf(text).flatMap(piecesOf)
}

function piecesOf(word: string): string[] {
  if (word.length <= PIECE_CHARACTERS) return [word]
  const pieces: string[] = []
  for (let from = 0; from < word.length; from += PIECE_CHARACTERS)
    pieces.push(word.slice(from, from + PIECE_CHARACTERS))
  return pieces
}

/** `order` is how many words it looks at to choose one: 3 has two before it. */
export function train(text: string, order: 2 | 3 = 3): Model {
  const words: string[] = []
  const ids = new Map<string, number>()
  const sequence = wordsOf(text.replace(/^CHAPTER .*$/gm, '').replace(/\s*\n\s*/g, ' ')).map((word) => {
    const known = ids.get(word)
    if (known !== undefined) return known
    ids.set(word, words.length)
    return words.push(word) - 1
  })
  const two = new Map<number, number[]>()
  const one = new Map<number, number[]>()
  const begins: number[] = []
  const pair = (first: number, second: number): number => first * words.length + second
  for (const [at, next] of sequence.entries()) {
    const last = sequence[at - 1]
    const before = sequence[at - 2]
    if (last === undefined) continue
    push(one, last, next)
    if (order === 3 && before !== undefined) push(two, pair(before, last), next)
    if (isEnd(words[last]) && /^ \p{Lu}/u.test(words[next] as string)) begins.push(next)
  }

  return {
    vocabulary: words.length,
    *generate({ prompt, seed, isEndless = false }) {
      const random = randomFrom(hashOf(prompt, seed))
      const pick = (from: readonly number[]): number => from[Math.floor(random() * from.length)] as number
      const some = 1 + Math.floor(random() * MOST_SENTENCES)
      const most = isEndless ? Number.POSITIVE_INFINITY : some
      // It takes up the last word of the prompt that it has read a sentence with.
      const known = wordsOf(prompt)
        .map((word) => ids.get(` ${word.trim()}`))
        .filter((id) => id !== undefined)
      let before = known.at(-2)
      let last = known.at(-1) ?? pick(begins)
      let isFirst = true
      for (let sentences = 0; sentences < most; ) {
        const choice = (before === undefined ? undefined : two.get(pair(before, last))) ?? one.get(last)
        const next = isFirst || choice === undefined ? pick(begins) : pick(choice)
        const word = words[next] as string
        yield* piecesOf(isFirst ? word.trimStart() : word)
        if (isEnd(word)) sentences++
        isFirst = false
        before = last
        last = next
      }
    },
  }
}

function push(into: Map<number, number[]>, key: number, next: number): void {
  const list = into.get(key)
  if (list === undefined) into.set(key, [next])
  else list.push(next)
}

const isEnd = (word: string | undefined): boolean => word !== undefined && /^ ?[.!?]$/.test(word)

/** FNV-1a: chance enough for a model of a book. */
export function hashOf(text: string, seed = 0): number {
  let hash = (2_166_136_261 ^ seed) >>> 0
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 16_777_619) >>> 0
  return hash
}

/** mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/**
 * A vector of a text: each of its words, and each two that stand together, add to one place of it. Texts that share words point
 * in a like direction, which is all that is claimed.
 */
export function embed(text: string, dimensions: number): number[] {
  const vector = new Array<number>(dimensions).fill(0)
  const words = wordsOf(text.toLowerCase()).map((word) => word.trim())
  for (const [at, word] of words.entries()) {
    if (word === '') continue
    for (const feature of [word, `${words[at - 1] ?? ''} ${word}`]) {
      const hash = hashOf(feature)
      vector[hash % dimensions] = (vector[hash % dimensions] as number) + (hash & 0x10000 ? 1 : -1)
    }
  }
  const length = Math.hypot(...vector) || 1
  return vector.map((value) => value / length)
}
