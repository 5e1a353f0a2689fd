import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createEngine, type Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'

const POLICY = {
  features: { work: { rate_card: [{ per_unit: { units: 1 } }] } },
  plans: { p: { waterfall: [{ credits: ['purchased'] }] } },
} as const

async function started(accounts = ['acme']): Promise<Engine> {
  const engine = await createEngine({ store: memoryStore({ strict: true }), policy: POLICY, sweeps: false })
  for (const id of accounts) {
    await engine.createAccount({ id, plan: 'p' })
    await engine.grant(id, { id: 'g', kind: 'purchased', amount: '100' })
  }
  return engine
}
const reserve = (engine: Engine, account: string, id: string) =>
  engine.reserve({
    request_id: id,
    account,
    subject: { user: 'ann' },
    feature: 'work',
    estimate: { units: 1 },
  })
const codeIs = (code: string) => (error: unknown) => error instanceof SluiceError && error.code === code

describe('a note on a request', () => {
  test('is written by one of several that write at once, and the others are told whose', async () => {
    const engine = await started()
    await reserve(engine, 'acme', 'r')
    const all = await Promise.all(['a', 'b', 'c'].map((text) => engine.note('acme', 'r', text, undefined)))
    assert.deepEqual(
      all.map(({ note }) => note),
      ['a', 'a', 'a'],
    )
    assert.equal((await engine.note('acme', 'r', 'd', 'b')).note, 'a')
    assert.equal((await engine.note('acme', 'r', 'e', 'a')).note, 'e')
    assert.equal((await engine.request('acme', 'r'))?.note, 'e')
    await engine.close()
  })

  test('stays through extending and settling, and changes nothing that is booked', async () => {
    const engine = await started()
    await reserve(engine, 'acme', 'r')
    await engine.note('acme', 'r', 'here', undefined)
    const { items: before } = await engine.entries('acme', {})
    await engine.note('acme', 'r', 'there', 'here')
    assert.deepEqual((await engine.entries('acme', {})).items, before)
    await engine.extend({ request_id: 'r', account: 'acme', step: 1, estimate: { units: 2 } })
    await engine.settle({ request_id: 'r', account: 'acme', usage: { units: 2 } })
    assert.deepEqual(await engine.request('acme', 'r'), {
      account: 'acme',
      request_id: 'r',
      state: 'settled',
      feature: 'work',
      subject: { user: 'ann' },
      attributes: {},
      created_at: (await engine.request('acme', 'r'))?.created_at,
      expires_at: null,
      step: 1,
      note: 'there',
    })
    assert.equal((await engine.audit({})).disagreements, 0)
    await engine.close()
  })

  test('goes with the person that the request was for', async () => {
    const engine = await started()
    await reserve(engine, 'acme', 'r')
    await engine.note('acme', 'r', 'where it is', undefined)
    await engine.release({ request_id: 'r', account: 'acme' })
    await engine.erase('acme', 'user', 'ann')
    assert.equal((await engine.request('acme', 'r'))?.note, undefined)
    assert.equal((await engine.audit({})).disagreements, 0)
    await engine.close()
  })

  test('is a short text on a request that is there', async () => {
    const engine = await started()
    await assert.rejects(engine.note('acme', 'r', 'x', undefined), codeIs('request_unknown'))
    await assert.rejects(engine.note('nobody', 'r', 'x', undefined), codeIs('request_unknown'))
    await reserve(engine, 'acme', 'r')
    await assert.rejects(engine.note('acme', 'r', 'x'.repeat(513), undefined), codeIs('invalid'))
    assert.equal((await engine.note('acme', 'r', 'x'.repeat(512), undefined)).note?.length, 512)
    assert.equal(await engine.request('acme', 'other'), undefined)
    await engine.close()
  })
})

test('open requests with a note are found over all accounts, page by page', async () => {
  const accounts = Array.from({ length: 7 }, (_, n) => `account-${n}`)
  const engine = await started(accounts)
  for (const account of accounts) {
    await reserve(engine, account, 'noted')
    await reserve(engine, account, 'plain')
    await reserve(engine, account, 'over')
    for (const id of ['noted', 'over']) await engine.note(account, id, account, undefined)
    await engine.release({ request_id: 'over', account })
  }
  const found: string[] = []
  let cursor: string | undefined
  do {
    const page = await engine.openNotes({ limit: 3, ...(cursor === undefined ? {} : { cursor }) })
    found.push(...page.items.map(({ account, request_id, note }) => `${account} ${request_id} ${note}`))
    cursor = page.next ?? undefined
  } while (cursor !== undefined)
  assert.deepEqual(
    found,
    accounts.map((account) => `${account} noted ${account}`),
  )
  await engine.close()
})

test('one of very many open requests with a note is found', async () => {
  const engine = await started()
  await engine.grant('acme', { id: 'more', kind: 'purchased', amount: '2000' })
  const ids = Array.from({ length: 1_203 }, (_, n) => `r${n}`)
  await Promise.all(ids.map((id) => reserve(engine, 'acme', id)))
  for (const id of ['r0', 'r601', 'r1202']) await engine.note('acme', id, 'here', undefined)
  const { items } = await engine.openNotes({})
  assert.deepEqual(items.map(({ request_id }) => request_id).sort(), ['r0', 'r1202', 'r601'])
  await engine.close()
})

test('requests whose ids begin alike are listed, open and closed, page by page', async () => {
  const engine = await started(['acme', 'other'])
  for (const id of ['job-1', 'job-2', 'job-3', 'jolly', 'k']) await reserve(engine, 'acme', id)
  await reserve(engine, 'other', 'job-4')
  await engine.release({ request_id: 'job-2', account: 'acme' })
  const first = await engine.requests('acme', { prefix: 'job-', limit: 2 })
  const second = await engine.requests('acme', { prefix: 'job-', limit: 2, cursor: first.next as string })
  assert.deepEqual(
    [...first.items, ...second.items].map(({ request_id, state }) => [request_id, state]),
    [
      ['job-1', 'open'],
      ['job-2', 'released'],
      ['job-3', 'open'],
    ],
  )
  assert.equal(second.next, null)
  await engine.close()
})
