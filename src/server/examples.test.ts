// The examples of the contract are true: the story is played, and what comes back is what the contract shows.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { memoryStore } from '../store/memory.ts'
import { STORY, STORY_STARTS_AT } from './examples.ts'
import { createWorld } from './fixtures/world.ts'

const FILE = new URL('examples.json', import.meta.url)

/** What chance is in, hashes over salts and secrets; and sentences, which may be worded anew. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (name, inner) => (['hash', 'secret', 'story'].includes(name) ? '…' : inner)),
  )

test('every scene is answered 200, with the answer that the contract shows', async () => {
  const world = await createWorld({
    storeOf: (now) => memoryStore({ now, strict: true }),
    startsAt: STORY_STARTS_AT,
  })
  const answers: Record<string, unknown> = {}
  for (const { id, method, url, body, ifMatch } of STORY) {
    const headers = ifMatch === undefined ? {} : { 'if-match': ifMatch }
    const answer = await world.ask(method, url, { headers, ...(body !== undefined && { body }) })
    assert.equal(answer.status, 200, `${id}: ${answer.text}`)
    answers[id] ??= answer.body
  }
  await world.close()
  // Written anew on demand, then read by a person: `SLUICE_WRITE_EXAMPLES=1 node --test src/server/examples.test.ts`.
  if (process.env.SLUICE_WRITE_EXAMPLES) writeFileSync(FILE, `${JSON.stringify(answers, null, 2)}\n`)
  assert.deepEqual(plain(answers), plain(JSON.parse(readFileSync(FILE, 'utf8'))))
})
