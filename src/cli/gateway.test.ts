/** The gateway as a process: its command line, its own calls, what it logs, and how it ends. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import OpenAI from 'openai'
import { MODELS, startUpstream, type Upstream } from '../../examples/upstream/server.ts'
import { testDatabase } from '../../test/postgres.ts'
import { gateway, type Server, serve, sluice, temporary } from '../../test/process.ts'

const ADMIN_KEY = 'an-admin-key-for-tests'
const SECRET = 'the-upstreams-own-key'
const POLICY = `
features:
  chat: { rate_card: [{ per_unit: { input_tokens: 1, cached_input_tokens: 1, output_tokens: 2 } }] }
plans:
  plus: { waterfall: [{ credits: [purchased] }] }
`
const messages = [{ role: 'user' as const, content: 'Do not put this sentence into a log.' }]

let upstream: Upstream
let slow: Upstream
const { folder, remove } = temporary()
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}
const configOf = (name: string, { url }: Upstream): string =>
  file(
    name,
    `upstreams: { book: { provider: openai, url: "${url}", key_env: BOOK_KEY } }
routes: [{ model: moby-1, upstream: book, feature: chat }]`,
  )
const store = (name: string): string => `sqlite:${join(folder, name)}`
let policy: string
let config: string
before(async () => {
  upstream = await startUpstream({ key: SECRET })
  slow = await startUpstream({ key: SECRET, tokensPerSecond: 40 })
  policy = file('policy.yaml', POLICY)
  config = configOf('gateway.yaml', upstream)
})
after(async () => {
  await Promise.all([upstream.close(), slow.close()])
  remove()
})

/** An account with credits and a key of its own, made before the gateway starts. */
async function account(target: readonly string[], id: string): Promise<string> {
  const run = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await sluice([...args, ...target])
    assert.equal(code, 0, stderr)
    return stdout.trim()
  }
  await run('account', 'create', id, '--plan', 'plus')
  await run('grant', 'issue', id, '100000', '--kind', 'purchased', '--id', 'order-1')
  return run('key', 'make', `${id}-laptop`, '--role', 'call', '--account', id, '--subject', 'user=u1')
}
const clientOf = ({ url }: { url: string }, apiKey: string): OpenAI =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 })

describe('the gateway as a process of its own', () => {
  let server: Server
  let key: string
  let reader: string
  const at = store('alone.db')
  before(async () => {
    await sluice(['policy', 'publish', policy, '--store', at])
    key = await account(['--store', at], 'ada')
    reader = (await sluice(['key', 'make', 'prometheus', '--role', 'read', '--store', at])).stdout.trim()
    server = await gateway(['--config', config, '--store', at], { BOOK_KEY: SECRET })
  })
  after(() => server.stop('SIGKILL'))

  test('it says where it listens, what it stands before, and a first call', () => {
    const told = server.stderr()
    assert.match(told, /give clients http:\S+\/v1 as their base URL/)
    assert.ok(told.includes(`upstream book: openai at ${upstream.url}`), told)
    assert.ok(told.includes('"model":"moby-1"'), told)
    assert.doesNotMatch(told, /No key is bound/)
    assert.doesNotMatch(told, new RegExp(SECRET))
  })

  test('a call goes through, and can be explained beside it', async () => {
    const { data, response } = await clientOf(server, key)
      .chat.completions.create({ model: MODELS.large, messages })
      .withResponse()
    assert.ok((data.usage?.completion_tokens ?? 0) > 0)
    const id = response.headers.get('x-sluice-request-id') as string
    let told = ''
    while (!/charged/i.test(told)) told = (await sluice(['explain', 'ada', id, '--store', at])).stdout
    assert.match(told, /purchased/)
  })

  test('it lives and is ready without a key, and tells metrics to those who may read all', async () => {
    const get = (path: string, bearer?: string) =>
      fetch(
        `${server.url}${path}`,
        bearer === undefined ? {} : { headers: { authorization: `Bearer ${bearer}` } },
      )
    assert.deepEqual(await (await get('/healthz')).json(), { status: 'ok' })
    assert.deepEqual(await (await get('/readyz')).json(), { status: 'ready' })
    assert.equal((await get('/metrics')).status, 401)
    assert.equal((await get('/metrics', key)).status, 403)
    const text = await (await get('/metrics', reader)).text()
    assert.match(text, /^sluice_gateway_calls_total\{endpoint="chat.completions",status="200"\} 1$/m)
    assert.match(text, /^sluice_charged_cu_total\{source="credits"\} \d+$/m)
  })

  test('a call that is refused has the code of its refusal in its line', async () => {
    await assert.rejects(clientOf(server, 'nobody').models.list(), OpenAI.AuthenticationError)
    await assert.rejects(
      clientOf(server, key).chat.completions.create({ model: 'another', messages }),
      OpenAI.NotFoundError,
    )
  })

  test('it ends with 0 on a signal, and has a line for each call without bodies and keys', async () => {
    assert.equal(await server.stop(), 0)
    const lines = server
      .stdout()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    const calls = lines.filter(({ msg }) => msg === 'answered')
    assert.deepEqual(
      calls.map(({ endpoint, status, account, key, code }) => [endpoint, status, account, key, code]),
      [
        ['chat.completions', 200, 'ada', 'ada-laptop', undefined],
        ['models', 401, undefined, undefined, 'unauthorized'],
        ['chat.completions', 404, 'ada', 'ada-laptop', 'no_route'],
      ],
    )
    assert.ok(calls.every(({ ms }) => typeof ms === 'number'))
    for (const secret of [key, reader, SECRET, messages[0]!.content, 'whale'])
      assert.ok(!server.stdout().includes(secret), `${secret} is in the log`)
  })
})

test('serve --gateway has both doors over one file, and ends both with what runs', async (t) => {
  const args = ['--store', store('both.db'), '--policy', policy]
  const both = await serve([...args, '--gateway', configOf('slow.yaml', slow), '--gateway-port', '0'], {
    ...{ SLUICE_ADMIN_KEY: ADMIN_KEY, BOOK_KEY: SECRET },
  })
  t.after(() => both.stop('SIGKILL'))
  let url: string | undefined
  while (url === undefined) {
    url = /The gateway listens on (http:\S+);/.exec(both.stderr())?.[1]
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const key = await account(['--url', both.url, '--key', ADMIN_KEY], 'bo')
  const stream = await clientOf({ url }, key).chat.completions.create({
    ...{ model: MODELS.large, messages, stream: true, max_tokens: 20 },
  })
  let ended: Promise<number | null> | undefined
  let finish: string | null | undefined
  for await (const { choices } of stream) {
    ended ??= both.stop()
    finish = choices[0]?.finish_reason ?? finish
  }
  assert.equal(await ended, 0)
  assert.ok(finish === 'length' || finish === 'stop', 'what runs comes to its end')
  const { stdout } = await sluice(['account', 'entries', 'bo', '--store', store('both.db')])
  assert.match(stdout, /charge/)
  assert.equal((await sluice(['audit', '--store', store('both.db')])).code, 0)
})

test('several gateways share a PostgreSQL', async (t) => {
  const database = await testDatabase()
  t.after(() => database.drop())
  const at = ['--store', database.url]
  await sluice(['policy', 'publish', policy, ...at])
  const key = await account(at, 'cy')
  const two = await Promise.all([1, 2].map(() => gateway(['--config', config, ...at], { BOOK_KEY: SECRET })))
  t.after(() => Promise.all(two.map((one) => one.stop('SIGKILL'))))
  for (const one of two) {
    const { usage } = await clientOf(one, key).chat.completions.create({ model: MODELS.large, messages })
    assert.ok((usage?.total_tokens ?? 0) > 0)
  }
  assert.deepEqual(await Promise.all(two.map((one) => one.stop())), [0, 0])
  assert.equal((await sluice(['audit', ...at])).code, 0)
})

describe('a gateway that cannot start says why in one line', () => {
  const refused: readonly [what: string, args: () => readonly string[], code: number, says: RegExp][] = [
    ['without a configuration', () => [], 2, /--config/],
    [
      'with a file that is not there',
      () => ['--config', join(folder, 'none.yaml')],
      3,
      /none.yaml: .*no such file/i,
    ],
    ['without the key of an upstream', () => ['--config', config], 1, /BOOK_KEY is not set/],
    ['in memory', () => ['--config', config, '--store', 'memory:'], 2, /serve --store memory: --gateway/],
  ]
  for (const [what, args, code, says] of refused)
    test(what, async () => {
      const ended = await sluice(['gateway', ...args()])
      assert.equal(ended.code, code, ended.stderr)
      assert.match(ended.stderr, says)
      assert.equal(ended.stderr.trim().split('\n').length, 1)
    })

  test('where its port is taken beside a server, whose door is closed again', async (t) => {
    const taken = createServer().listen(0, '127.0.0.1')
    t.after(() => taken.close())
    await new Promise((resolve) => taken.once('listening', resolve))
    const { port } = taken.address() as { port: number }
    const { code, stderr } = await sluice(
      ['serve', '--port', '0', '--store', 'memory:', '--gateway', config, '--gateway-port', String(port)],
      { BOOK_KEY: SECRET },
    )
    assert.equal(code, 3)
    assert.match(stderr, /another process listens there/i)
  })
})
