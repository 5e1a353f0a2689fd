/** Commands that act on state, on a store directly and through a server: they do the same, and say the same. */
import assert from 'node:assert/strict'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Ended, ROOT, type Server, serve, sluice, temporary } from '../../test/process.ts'

const EXAMPLE = join(ROOT, 'examples/codex-and-sora.yaml')
const ADMIN_KEY = 'an-admin-key-for-tests'

/** Runs a command that must succeed, and reads its JSON. */
async function json(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const ended = await sluice([...args, '--json'], env)
  assert.equal(ended.code, 0, ended.stderr)
  return JSON.parse(ended.stdout)
}

async function call(url: string, path: string, body: object): Promise<Record<string, unknown>> {
  const headers = { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' }
  const answer = await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
  return (await answer.json()) as Record<string, unknown>
}

describe('beside and through a running server', () => {
  const { folder, remove } = temporary()
  const store = `sqlite:${join(folder, 'sluice.db')}`
  let server: Server
  let env: Readonly<Record<string, string>>
  before(async () => {
    server = await serve(['--policy', EXAMPLE, '--store', store], { SLUICE_ADMIN_KEY: ADMIN_KEY })
    env = { SLUICE_URL: server.url, SLUICE_KEY: ADMIN_KEY }
  })
  after(async () => {
    await server.stop('SIGKILL')
    remove()
  })

  test('accounts and credits are made over HTTP, and read beside the server', async () => {
    await json(['account', 'create', 'acme', '--plan', 'plus', '--metadata', 'crm=7'], env)
    const grant = ['grant', 'issue', 'acme', '500', '--kind', 'purchased', '--id', 'invoice-1']
    assert.equal((await json(grant, env)).replayed, false)
    assert.equal((await json(grant, env)).replayed, true)
    const here = await json(['account', 'show', 'acme', '--store', store])
    const there = await json(['account', 'show', 'acme'], env)
    assert.deepEqual(here, there)
    assert.equal(here.credits.available, '600')
    assert.deepEqual(
      (await json(['account', 'list'], env)).items,
      (await json(['account', 'list', '--store', store])).items,
    )
    assert.match((await sluice(['grant', 'list', 'acme'], env)).stdout, /invoice-1 +purchased +active +500/)
  })

  test('a command that would write is refused, and told which server to ask', async () => {
    const { code, stderr } = await sluice(['account', 'set', 'acme', '--plan', 'pro', '--store', store])
    assert.equal(code, 3)
    assert.ok(stderr.includes(`--url ${server.url}`), stderr)
  })

  test('a call that the server refuses ends with 1, in one line with the remedy', async () => {
    const { code, stdout, stderr } = await sluice(['account', 'show', 'nobody'], env)
    assert.deepEqual([code, stdout, stderr.trimEnd().split('\n').length], [1, '', 1])
    assert.match(stderr, /nobody/)
    assert.equal((await sluice(['account', 'list'], { ...env, SLUICE_KEY: 'wrong' })).code, 1)
  })

  test('explain tells a request the same way beside the server and through it, and finds it by an entry', async () => {
    const request = { request_id: 'q1', account: 'acme', subject: { user: 'ada' }, feature: 'codex.task' }
    const estimate = { input_tokens: 200_000, output_tokens: 80_000 }
    const reserved = await call(server.url, '/v1/reserve', { ...request, estimate })
    assert.equal(reserved.outcome, 'allow')
    await call(server.url, '/v1/settle', { request_id: 'q1', account: 'acme', usage: estimate })
    const here = await sluice(['explain', 'acme', 'q1', '--store', store])
    assert.match(here.stdout, /State +settled/)
    assert.match(here.stdout, /Charged +85 CU/)
    const anywhere = await sluice(['explain', 'q1'], env)
    assert.equal(anywhere.stdout, here.stdout, anywhere.stderr)
    const [entry] = (await json(['account', 'entries', 'acme', '--kind', 'charge'], env)).items
    assert.equal((await sluice(['explain', '--entry', entry.id], env)).stdout, here.stdout)
  })

  test('explain tells a refusal with what would help', async () => {
    const request = {
      request_id: 'q2',
      account: 'acme',
      subject: { user: 'ada' },
      feature: 'codex.task',
      cost: '100000',
    }
    assert.equal((await call(server.url, '/v1/reserve', request)).outcome, 'deny')
    const { stdout } = await sluice(['explain', 'acme', 'q2'], env)
    assert.match(stdout, /State +refused/)
    assert.match(stdout, /Subject +user=ada/)
    assert.match(
      stdout,
      /Refused: .* \([a-z_]+\)\. It asked for 100000 CU of [a-z.]+\..*(more of credits|of at most)/,
    )
  })

  test('a policy is shown as it was written, compared, and published under a version', async () => {
    const text = readFileSync(EXAMPLE, 'utf8')
    assert.equal((await sluice(['policy', 'show'], env)).stdout.trimEnd(), text.trimEnd())
    const same = await sluice(['policy', 'diff', 'active', EXAMPLE, '--exit-code'], env)
    assert.equal(same.code, 0, same.stderr)
    const changed = join(folder, 'changed.yaml')
    writeFileSync(changed, text.replace('limit: "75"', 'limit: "80"'))
    assert.equal((await sluice(['policy', 'publish', changed, '--if-version', '7'], env)).code, 1)
    assert.equal((await json(['policy', 'publish', changed, '--if-version', '1'], env)).version, 2)
    assert.match((await sluice(['policy', 'diff', 'version:1', 'active'], env)).stdout, /75 CU → 80 CU/)
  })

  test('limits are replaced for a while, and follow the plan again', async () => {
    const because = ['--reason', 'launch']
    const more = await json(
      ['account', 'override', 'acme', 'tasks/5h', '200', '--until', '+7d', ...because],
      env,
    )
    assert.deepEqual([more.overrides.length, more.overrides[0].limit], [1, '200'])
    assert.equal(
      (await json(['account', 'override', 'acme', 'tasks/5h', 'none', ...because], env)).overrides.length,
      0,
    )
  })

  test('a person is forgotten by a running server, once no request of theirs is open', async () => {
    const subject = { user: 'grace-hopper' }
    const request = { request_id: 'q3', account: 'acme', subject, feature: 'codex.task' }
    await call(server.url, '/v1/reserve', { ...request, estimate: { input_tokens: 10 } })
    const erase = ['erase', 'acme', 'user=grace-hopper', '--yes']
    const early = await sluice(erase, env)
    assert.deepEqual([early.code, early.stdout], [1, ''])
    assert.match(early.stderr, /q3 .*still open.* [Ss]ettle or release it/)
    await call(server.url, '/v1/settle', { request_id: 'q3', account: 'acme', usage: { input_tokens: 10 } })
    assert.match(
      (await sluice(erase, env)).stdout,
      /^[1-9]\d* entries of acme no longer name user grace-hopper\n$/,
    )
    const journal = JSON.stringify(await json(['account', 'entries', 'acme'], env))
    assert.ok(journal.includes('ada') && !journal.includes('grace-hopper'))
    assert.equal((await sluice(['audit', '--store', store])).code, 0)
  })

  test('an account is repaired and a clock accepted while the server runs', async () => {
    assert.equal((await json(['account', 'repair', 'acme'], env)).id, 'acme')
    const unknown = await sluice(['account', 'repair', 'nobody'], env)
    assert.deepEqual([unknown.code, /nobody/.test(unknown.stderr)], [1, true])
    assert.deepEqual(await json(['clock', 'accept'], env), { accepted: true })
  })

  test('a key is shown once, works, and stops working', async () => {
    const made = await sluice(['key', 'make', 'gateway', '--role', 'read'], env)
    const secret = made.stdout.trim()
    assert.match(secret, /^\S{20,}$/)
    const own = { ...env, SLUICE_KEY: secret }
    assert.equal((await sluice(['account', 'list'], own)).code, 0)
    const listed = await sluice(['key', 'list'], env)
    assert.match(listed.stdout, /gateway +read/)
    assert.ok(![listed.stdout, listed.stderr, made.stderr].join().includes(secret))
    await json(['key', 'revoke', 'gateway'], env)
    assert.equal((await sluice(['account', 'list'], own)).code, 1)
    const logged = server.stdout() + server.stderr()
    assert.ok(!logged.includes(secret) && !logged.includes(ADMIN_KEY))
  })
})

describe('on a store without a server', () => {
  const { folder, remove } = temporary()
  const path = join(folder, 'sluice.db')
  const at = ['--store', `sqlite:${path}`]
  after(remove)
  const told = (ended: Ended): unknown => [ended.code, ended.stderr]

  test('a server that is ended by SIGTERM ends with 0, and what it kept can be changed', async () => {
    const server = await serve(['--policy', EXAMPLE, ...at], { SLUICE_ADMIN_KEY: ADMIN_KEY })
    await call(server.url, '/v1/reserve', {
      ...{ request_id: 'q1', account: 'bo', subject: { user: 'ada-lovelace' }, feature: 'codex.task' },
    })
    await call(server.url, '/v1/settle', { request_id: 'q1', account: 'bo', usage: { input_tokens: 10 } })
    assert.equal(await server.stop(), 0)
    assert.equal((await json(['account', 'set', 'bo', '--status', 'suspended', ...at])).status, 'suspended')
    assert.deepEqual(told(await sluice(['account', 'repair', 'bo', ...at])), [0, ''])
  })

  test('erase wants to be sure, and then nothing names the person', async () => {
    const unsure = await sluice(['erase', 'bo', 'user=ada-lovelace', ...at])
    assert.equal(unsure.code, 2)
    assert.match(unsure.stderr, /--yes/)
    assert.ok((await json(['erase', 'bo', 'user=ada-lovelace', '--yes', ...at])).entries > 0)
    const story = await sluice(['explain', 'bo', 'q1', '--json', ...at])
    assert.equal(story.code, 0, story.stderr)
    assert.ok(!story.stdout.includes('ada-lovelace'))
  })

  test('the first key and the first policy are there before the first start', async () => {
    const fresh = ['--store', `sqlite:${join(folder, 'fresh/sluice.db')}`]
    const secret = (await sluice(['key', 'make', 'ops', '--role', 'admin', ...fresh])).stdout.trim()
    assert.equal((await sluice(['policy', 'publish', EXAMPLE, ...fresh])).code, 0)
    const server = await serve(fresh)
    const env = { SLUICE_KEY: secret }
    assert.equal(
      (await sluice(['account', 'create', 'a', '--plan', 'plus', '--url', server.url], env)).code,
      0,
    )
    assert.equal(await server.stop('SIGINT'), 0)
  })

  test('the demonstration keeps its key for this user alone, and the same after a restart', async () => {
    const demo = ['--demo', '--store', `sqlite:${join(folder, 'demo/sluice.db')}`]
    const keyOf = (server: Server): string => /^key +(\S+)/m.exec(server.stdout())?.[1] ?? ''
    const first = await serve(demo)
    const key = keyOf(first)
    await first.stop()
    assert.equal(statSync(join(folder, 'demo/development-key')).mode & 0o777, 0o600)
    const second = await serve(demo)
    assert.equal(keyOf(second), key)
    await second.stop()
  })
})
