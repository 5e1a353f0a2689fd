import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Cell, Key, RequestCell } from '../../kernel/cells.ts'
import type { EntryKind } from '../../ledger/entries.ts'
import type { Store } from '../../store.ts'
import {
  account,
  type Bench,
  count,
  entry,
  failsWith,
  put,
  request,
  START,
  upTo,
  writeRequests,
} from './bench.ts'

export function pages({ place }: Bench): void {
  it('lists accounts page by page, in order of id, without the system’s', async () => {
    const { store } = await place()
    const ids = upTo(25).map((i) => `acct-${i}`)
    await Promise.all(['@system', ...ids].map((id) => store.transact(id, [], put(['account', account(id)]))))
    const seen: string[] = []
    for (let after: string | undefined; ; after = seen.at(-1)) {
      const page = await store.accounts({ limit: 7, ...(after === undefined ? {} : { after }) })
      seen.push(...page.map((cell) => cell.id))
      if (page.length < 7) break
    }
    assert.deepEqual(seen, ids.sort())
  })

  it('lists cells by prefix, page by page, in order of key', async () => {
    const { store } = await place()
    const keys: Key[] = [
      'account',
      'grant:g1',
      'key:k1',
      'request:r1',
      'request:r2',
      'subject:team=t',
      'subject:user=u1',
      'subject:user=u10',
      'subject:user=u2',
      'subject:user=🙂',
    ]
    await store.transact(
      'a',
      [],
      put(
        ...keys.map((key): [Key, Cell] => [
          key,
          key.startsWith('request:') ? request(key, null) : account(key),
        ]),
      ),
    )
    await store.transact('b', [], put(['account', account('b')], ['subject:user=u3', account('s')]))
    const list = async (prefix: string, limit: number): Promise<Key[]> => {
      const seen: Key[] = []
      for (let after: Key | undefined; ; after = seen.at(-1)) {
        const page = await store.cells('a', prefix, { limit, ...(after === undefined ? {} : { after }) })
        seen.push(...page.map(({ key }) => key))
        if (page.length < limit) return seen
      }
    }
    for (const limit of [1, 3, 100]) {
      assert.deepEqual(await list('', limit), keys)
      assert.deepEqual(await list('subject:user=', limit), keys.slice(6))
      assert.deepEqual(await list('request:', limit), keys.slice(3, 5))
      assert.deepEqual(await list('request:r2', limit), keys.slice(4, 5))
    }
    assert.deepEqual(await list('account', 9), ['account'])
    assert.deepEqual(await list('nothing:', 9), [])
    assert.deepEqual(await store.cells('nobody', '', { limit: 9 }), [])
    const [first] = await store.cells('a', 'grant:', { limit: 1 })
    assert.deepEqual(first, { key: 'grant:g1', cell: account('grant:g1') })
  })

  it('shows accounts as they stood at one moment, with the entries after a number, and says what is not all', async () => {
    const { store } = await place()
    const parts: [Key, Cell][] = [
      ['account', account('a')],
      ['subject:user=u1', account('s')],
      ['grant:g1', account('g')],
      ['request:open', request('open', START + 5)],
      ['request:closed', request('closed', null)],
    ]
    await store.transact('a', [], put(...parts))
    await store.transact('a', [], () => ({ result: 0, writes: [], entries: [entry(1), entry(2), entry(3)] }))
    await store.transact('b', [], put(['account', account('b')]))
    const asked = ['a', 'nobody', 'b'].map((name) => ({ account: name, afterSeq: 1 }))
    const [whole, nobody, other] = await store.snapshots(asked, 2)
    assert.deepEqual(whole?.account, account('a'))
    assert.deepEqual(whole?.subjects, [account('s')])
    assert.deepEqual(whole?.grants, [account('g')])
    assert.deepEqual(whole?.requests.map(({ id }) => id).sort(), ['closed', 'open'])
    assert.deepEqual(
      whole?.entries.map(({ seq }) => seq),
      [2, 3],
    )
    assert.equal(whole?.whole, true)
    const none = { subjects: [], grants: [], requests: [], entries: [], whole: true }
    assert.deepEqual(nobody, { account: null, ...none })
    assert.deepEqual(other, { account: account('b'), ...none })
    const [tight] = await store.snapshots([{ account: 'a', afterSeq: 0 }], 2)
    assert.equal(tight?.whole, false)
    assert.equal(await store.countHolds(), 1)
  })

  it('holds one moment of an account while it is read page by page, and others write', async () => {
    const { store } = await place()
    const keys = upTo(5).map((n): [Key, Cell] => [`subject:user=u${n}`, account(`s${n}`)])
    const holds = upTo(5).map((n) => request(`h${n}`, START + 100 - (n % 3)))
    await store.transact('a', [], put(['account', account('a')], ...keys))
    await store.transact('a', [], writeRequests(...holds, request('closed', null)))
    await store.transact('a', [], () => ({ result: 0, writes: [], entries: [entry(1)] }))
    await store.transact('@system', [], put(['policy:2', account('p2')]))
    const seen = await store.snapshot('a', async (moment) => {
      await store.transact('a', [], put(['account', account('later')], ['subject:user=u9', account('s9')]))
      await store.transact('a', [], writeRequests(request('h9', START + 50), request('h1', null)))
      await store.transact('a', [], () => ({ result: 0, writes: [], entries: [entry(2)] }))
      const subjects: Key[] = []
      for (let after: Key | undefined; ; after = subjects.at(-1)) {
        const page = await moment.subjects({ limit: 2, ...(after === undefined ? {} : { after }) })
        subjects.push(...page.map(({ key }) => key))
        if (page.length < 2) break
      }
      const open: RequestCell[] = []
      for (;;) {
        const page = await moment.holds(open.at(-1), 2)
        open.push(...page)
        if (page.length < 2) break
      }
      return {
        own: moment.account,
        subjects,
        open: open.map(({ id }) => id).sort(),
        entries: (await moment.entries({ from: 1, limit: 9 })).map(({ seq }) => seq),
        policies: [await moment.policy(2), await moment.policy(3)],
      }
    })
    assert.deepEqual(seen, {
      own: account('a'),
      subjects: keys.map(([key]) => key),
      open: holds.map(({ id }) => id),
      entries: [1],
      policies: [account('p2'), null],
    })
    assert.equal(await store.snapshot('nobody', async (moment) => moment.account), null)
    const useless = new Error('what was read is of no use')
    await assert.rejects(
      store.snapshot('a', () => Promise.reject(useless)),
      (error) => error === useless,
    )
    assert.ok(store.health().ready)
    assert.equal((await store.holds('a', 9)).length, 5)
  })

  it('lets no moment last: who goes on reading after 5 s is told what to do', async (t) => {
    const { store } = await place()
    await store.transact('a', [], put(['account', account('a')]))
    const { now } = performance
    let later = 0
    t.mock.method(performance, 'now', () => now.call(performance) + later)
    const late = store.snapshot('a', async (moment) => {
      await moment.subjects({ limit: 1 })
      later = 5_001
      return moment.subjects({ limit: 1 })
    })
    await assert.rejects(late, failsWith('unavailable'))
    assert.ok(store.health().ready)
    assert.equal(await store.snapshot('a', async (moment) => (await moment.entries({ limit: 1 })).length), 0)
  })

  it('lists open requests in order of end, and who knows a request', async () => {
    const { store } = await place()
    await store.transact(
      'a',
      [],
      writeRequests(request('x', START + 2), request('y', START + 1), request('z', null)),
    )
    await store.transact('b', [], writeRequests(request('x', null)))
    assert.deepEqual(
      (await store.holds('a', 9)).map(({ id }) => id),
      ['y', 'x'],
    )
    assert.deepEqual(
      (await store.holds('a', 1)).map(({ id }) => id),
      ['y'],
    )
    assert.deepEqual(await store.holds('nobody', 1), [])
    assert.deepEqual(await store.accountsOfRequest('x', 9), ['a', 'b'])
    assert.deepEqual(await store.accountsOfRequest('x', 1), ['a'])
    assert.deepEqual(await store.accountsOfRequest('none', 9), [])
  })
}

export function journals({ place }: Bench): void {
  it('reads an account’s entries in both directions, by number and kind', async () => {
    const { store } = await place()
    const kinds: EntryKind[] = ['usage', 'charge', 'balance', 'decision', 'change']
    const entries = upTo(20).map((seq) => entry(seq, kinds[seq % 5] as EntryKind, seq === 3 ? 'part' : null))
    await store.transact('a', [], () => ({ result: null, writes: [], entries }))
    await store.transact('b', [], () => ({ result: null, writes: [], entries: entries.slice(0, 1) }))
    const numbers = async (query: Parameters<Store['entries']>[1]): Promise<number[]> =>
      (await store.entries('a', query)).map(({ seq }) => seq)
    assert.deepEqual(await store.entries('a', { limit: 99 }), entries)
    assert.deepEqual(await numbers({ from: 5, to: 9, limit: 99 }), [5, 6, 7, 8, 9])
    assert.deepEqual(await numbers({ from: 5, to: 9, limit: 2 }), [5, 6])
    assert.deepEqual(await numbers({ from: 5, to: 9, limit: 2, newestFirst: true }), [9, 8])
    assert.deepEqual(await numbers({ kinds: ['charge', 'change'], limit: 4 }), [1, 4, 6, 9])
    assert.deepEqual(await numbers({ kinds: ['charge'], newestFirst: true, limit: 2 }), [16, 11])
    assert.deepEqual(await store.entries('nobody', { limit: 9 }), [])
  })

  it('reads all accounts’ entries in commit order, without gaps, while others write', async () => {
    const { store } = await place()
    const seen: string[] = []
    let position: string | undefined
    let writing = true
    const follow = async (): Promise<void> => {
      for (let last = false; ; ) {
        const page = await store.journal(position, 50)
        seen.push(...page.map((row) => `${row.account}/${row.entry.seq}`))
        position = page.at(-1)?.position ?? position
        if (page.length === 0 && last) return
        last = !writing
        await new Promise((resolve) => setTimeout(resolve, 0))
      }
    }
    const following = follow()
    for (let round = 0; round < 10; round++) {
      await Promise.all(upTo(200).map((i) => store.transact(`a${i % 11}`, ['account'], count(`a${i % 11}`))))
    }
    writing = false
    await following
    assert.equal(seen.length, 2000)
    assert.equal(new Set(seen).size, 2000)
    for (let a = 0; a < 11; a++) {
      const own = seen.filter((line) => line.startsWith(`a${a}/`)).map((line) => Number(line.split('/')[1]))
      assert.deepEqual(own, upTo(own.length))
    }
    const usage = await store.journal(undefined, 10, ['usage'])
    assert.equal(usage.length, 10)
    assert.deepEqual(await store.journal(undefined, 10, ['charge']), [])
  })
}

export function refusals({ place }: Bench): void {
  it('keeps a log of refusals, newest first, and forgets a subject', async () => {
    const { store } = await place()
    const line = (i: number, user: string) => ({
      account: 'a',
      requestId: `r${i}`,
      subject: { user },
      reason: 'rate_full',
      at: START + i,
      count: i,
      answer: `{"n":${i}}`,
    })
    const lines = [line(1, 'u1'), line(2, 'u2'), line(3, 'u1')]
    await store.logRefusals(lines.slice(0, 2))
    await store.logRefusals([lines[2] as (typeof lines)[0], { ...line(4, 'u1'), account: 'b' }])
    assert.deepEqual(await store.refusals('a', { limit: 9 }), lines.toReversed())
    assert.deepEqual(await store.refusals('a', { limit: 1 }), [lines[2]])
    assert.deepEqual(await store.refusals('a', { requestId: 'r2', limit: 9 }), [lines[1]])
    await store.eraseRefusals('a', 'user', 'u1')
    assert.deepEqual(await store.refusals('a', { limit: 9 }), [lines[1]])
    assert.equal((await store.refusals('b', { limit: 9 })).length, 1)
  })
}
