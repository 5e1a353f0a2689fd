import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { encode } from 'gpt-tokenizer'
import { countTokens, roughTokens } from './tokens.ts'

/** Repeatable, and random enough. */
function signs(count: number, from: number, of: number): string {
  let state = 1
  const all: number[] = []
  for (let n = 0; n < count; n++) {
    state = (state * 48_271) % 2_147_483_647
    all.push(from + (state % of))
  }
  return all.map((code) => String.fromCodePoint(code)).join('')
}

describe('tokens are counted', () => {
  test('as the tokenizer counts them in ordinary text', async () => {
    const text = 'The quick brown fox, aged 12, jumps over 3 lazy dogs.\n'.repeat(20)
    assert.equal(await countTokens(text), encode(text).length)
    assert.equal(await countTokens(''), 0)
  })

  test('in long text with as good as no difference', async () => {
    const text = 'The quick brown fox, aged 12, jumps over 3 lazy dogs.\n'.repeat(1_800)
    const [counted, whole] = [await countTokens(text), encode(text).length]
    assert.ok(Math.abs(counted - whole) / whole < 0.001, `${counted} for ${whole}`)
  })

  const hostile: readonly [name: string, text: string][] = [
    ['equal letters', 'a'.repeat(100_000)],
    ['random letters', signs(100_000, 97, 26)],
    ['random ideographs', signs(100_000, 0x4e00, 20_000)],
    ['random pictures', signs(50_000, 0x1f300, 500)],
    ['spaces', ' '.repeat(100_000)],
    ['equal signs', '!'.repeat(100_000)],
    ['halves of pairs', '\ud83d'.repeat(100_000)],
    ['names of special tokens', '<|endoftext|>'.repeat(7_500)],
  ]
  for (const [name, text] of hostile)
    test(`and others have their turn meanwhile: ${name}`, async () => {
      let turns = 0
      let isDone = false
      const turn = (): void => {
        turns++
        if (!isDone) setImmediate(turn)
      }
      setImmediate(turn)
      const tokens = await countTokens(text)
      isDone = true
      assert.ok(tokens > 0 && tokens < 4 * text.length, `${tokens}`)
      assert.ok(turns >= text.length / 1_100, `${turns}`)
    })

  test('roughly by bytes, so that scripts with few characters a token are not taken for short', () => {
    assert.deepEqual([roughTokens('abcdefgh'), roughTokens('漢字漢字'), roughTokens('')], [2, 3, 0])
  })
})
