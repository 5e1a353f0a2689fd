/** The guide's own configurations, run: its gateway behind the real nginx and the real Caddy. Envoy's are held against the gateway's. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { parse } from 'yaml'
import { POLICY as BESIDE, type Beside, beside } from '../../../test/beside.ts'
import { freePort } from '../../../test/ports.ts'
import { ROOT, temporary } from '../../../test/process.ts'

const GUIDE = readFileSync(join(ROOT, 'docs/guides/beside-proxies.md'), 'utf8')
const blocks = [...GUIDE.matchAll(/^```(\w+)\n([\s\S]*?)^```/gm)].map(([, kind = '', text = '']) => ({
  kind,
  text,
}))
const block = (kind: string, place = 0): string => {
  const found = blocks.filter((one) => one.kind === kind)[place]
  assert.ok(found, `the guide has a block of ${kind}`)
  return found.text
}
const OWN = block('yaml')
const { features: PRICED, plans } = BESIDE
const POLICY = {
  features: { 'api.call': PRICED.call, 'api.render': PRICED.call, 'api.agent': PRICED.tokens },
  plans,
}

interface Seen {
  readonly url: string | undefined
  readonly authorization: string | undefined
  readonly account: string | undefined
  readonly request: string | undefined
}
interface Proxy {
  readonly url: string
  /** Ends it, and waits until it has. */
  stop(): Promise<void>
}

/** What a machine lacks, in one sentence; the tests that want it say it and prove nothing there. */
function lacks(program: string, args: readonly string[], packet: string): string | undefined {
  return spawnSync(program, args).error === undefined
    ? undefined
    : `not proved on this machine: there is no ${program} (Debian: apt-get install ${packet})`
}
/** Debian has nginx where only root looks. */
process.env.PATH = `${process.env.PATH}:/usr/sbin`
const noNginx = lacks('nginx', ['-v'], 'nginx-light')
const noCaddy = lacks('caddy', ['version'], 'caddy')

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    }).on('error', () => resolve(false))
  })

/** A proxy as a child of this process, until it listens; its log is told where it does not. */
async function start(command: readonly string[], folder: string, port: number): Promise<Proxy> {
  const [program = '', ...args] = command
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
  const orphaned = (): void => void child.kill('SIGKILL')
  process.once('exit', orphaned)
  const ended = once(child, 'close')
  let isRunning = true
  void ended.then(() => {
    isRunning = false
  })
  while (!(await accepts(port))) {
    assert.ok(isRunning, `${program} did not start: ${said}`)
    await pause(20)
  }
  return {
    url: `http://127.0.0.1:${port}`,
    async stop() {
      child.kill('SIGTERM')
      await ended
      process.off('exit', orphaned)
    },
  }
}

/** The guide's text with the ports of this test, and its patience. */
function placed(text: string, ports: Readonly<Record<string, number>>): string {
  // Machines that run tests may be slow, and a Sluice that is gone refuses connections at once.
  let now = text.replaceAll(/\b(250ms|2s)\b/g, '60s')
  for (const [address, port] of Object.entries(ports)) {
    assert.ok(now.includes(address), `the guide names ${address}`)
    now = now.replaceAll(address, `127.0.0.1:${port}`)
  }
  return now
}

function openly(text: string, marks: readonly (readonly [from: string, to: string])[]): string {
  let now = text
  for (const [from, to] of marks) {
    assert.ok(now.includes(from), `the guide says how it would be open: ${from}`)
    now = now.replace(from, to)
  }
  return now
}

describe('the guide', () => {
  let world: Beside
  let app: Server
  let seen: Seen[] = []
  let home: ReturnType<typeof temporary>
  const portOf = (url: string) => Number(new URL(url).port)
  beforeEach(async () => {
    home = temporary()
    world = await beside(OWN.replace('port: 8789', 'port: 0'), POLICY)
    seen = []
    app = createServer((request, response) => {
      const { authorization, 'x-sluice-account': account, 'x-sluice-request-id': id } = request.headers
      seen.push({ url: request.url, authorization, account: account as string, request: id as string })
      response.end('done')
    }).listen(0, '127.0.0.1')
    await once(app, 'listening')
  })
  afterEach(async () => {
    await world.close()
    app.closeAllConnections()
    app.close()
    home.remove()
  })
  const appPort = () => (app.address() as AddressInfo).port

  async function startNginx(server: string): Promise<Proxy> {
    const port = await freePort()
    const text = placed(server, {
      '127.0.0.1:8788': portOf(world.url),
      '127.0.0.1:8080': port,
      '127.0.0.1:3000': appPort(),
    })
    const { folder } = home
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => {
      mkdirSync(join(folder, name))
      return `${name}_temp_path ${join(folder, name)};`
    })
    const file = join(folder, 'nginx.conf')
    writeFileSync(
      file,
      `daemon off; master_process off; pid ${folder}/pid; error_log stderr warn;
       events {} http { access_log off; ${paths.join(' ')} ${text} }`,
    )
    return start(['nginx', '-e', 'stderr', '-p', folder, '-c', file], folder, port)
  }

  async function startCaddy(site: string): Promise<Proxy> {
    const port = await freePort()
    const text = placed(site, {
      '127.0.0.1:8788': portOf(world.url),
      '127.0.0.1:8080': port,
      '127.0.0.1:3000': appPort(),
    })
    const file = join(home.folder, 'Caddyfile')
    writeFileSync(file, `{\n\tadmin off\n\tauto_https off\n}\n${text}`)
    return start(['caddy', 'run', '--config', file, '--adapter', 'caddyfile'], home.folder, port)
  }

  const send = async (
    proxy: Proxy,
    method: string,
    path: string,
    key: string,
    more: Record<string, string> = {},
  ) => {
    const response = await fetch(`${proxy.url}${path}`, {
      ...{ method, headers: { authorization: `Bearer ${key}`, ...more } },
      ...(method === 'POST' && { body: '{"size":"large"}' }),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text }
  }

  /** What is true behind either of them. */
  async function prove(proxy: Proxy): Promise<void> {
    const key = await world.account('ada', '100')
    const forged = {
      ...{ 'x-sluice-account': 'forged', 'x-sluice-request-id': 'forged', 'x-request-id': 'same' },
      ...{ 'x-original-uri': '/v1/a', 'x-original-method': 'GET' },
      ...{ 'x-forwarded-uri': '/v1/a', 'x-forwarded-method': 'GET' },
    }
    for (const time of [1, 2]) {
      const said = await send(proxy, 'POST', '/v1/render?x=1', key, forged)
      assert.deepEqual([said.status, said.text], [200, 'done'], `time ${time}`)
    }
    assert.deepEqual(await world.charged('ada'), [2, '5'])
    for (const { url, authorization, account, request } of seen) {
      assert.deepEqual([url, authorization, account], ['/v1/render?x=1', undefined, 'ada'])
      const { state } = await world.engine.explain('ada', request ?? '')
      assert.equal(state, 'settled')
    }
    const seldom = await world.account('seldom', '100', { plan: 'seldom' })
    for (let time = 0; time < 2; time++) assert.equal((await send(proxy, 'GET', '/v1/a', seldom)).status, 200)
    const refused = await send(proxy, 'GET', '/v1/a', seldom)
    assert.equal(refused.status, 429)
    assert.ok(Number(refused.headers.get('retry-after')) > 0)
    assert.match(refused.headers.get('ratelimit') ?? '', /"calls";r=0/)
    assert.match(refused.headers.get('content-type') ?? '', /^application\/problem\+json/)
    const problem = JSON.parse(refused.text)
    assert.deepEqual([problem.status, problem.code], [429, 'rate_full'])
    const why = await world.engine.explain('seldom', problem.request_id)
    assert.deepEqual([why.state, why.refusals.length], ['none', 1])
    assert.equal((await send(proxy, 'GET', '/v1/a', 'nobody')).status, 401)
    assert.equal((await send(proxy, 'GET', '/elsewhere', key)).status, 403)
    assert.equal((await send(proxy, 'GET', '/v1/a%2fb', key)).status, 400)
    assert.deepEqual(await world.charged('seldom'), [2, '2'])
    assert.equal(seen.length, 4)

    // What is held is reported by the application, with what the proxy gave it.
    await send(proxy, 'POST', '/v1/agents/1', key)
    const { account, request } = seen.at(-1) as Seen
    const service = await world.key({ id: 'service', role: 'meter' })
    const [, json = ''] = /-d '(.*)'/.exec(block('sh')) ?? []
    const told = await fetch(`${world.url}/forward-auth/usage`, {
      ...{
        method: 'POST',
        headers: { authorization: `Bearer ${service}`, 'content-type': 'application/json' },
      },
      body: JSON.stringify({ ...JSON.parse(json), account, request_id: request }),
    })
    assert.equal(((await told.json()) as { charged: string }).charged, '61')
  }

  /** What the guide says of Sluice being gone. */
  async function proveGone(proxy: Proxy, isOpen: boolean): Promise<void> {
    const key = await world.account('ada', '100')
    await world.stopGateway()
    const said = await send(proxy, 'GET', '/v1/a', key, { 'x-sluice-account': 'forged' })
    assert.equal(said.status, isOpen ? 200 : 503)
    assert.deepEqual(
      seen.map(({ authorization, account }) => [authorization, account]),
      isOpen ? [[undefined, undefined]] : [],
    )
    assert.deepEqual(await world.charged('ada'), [0, '0'])
  }

  async function withProxy(starting: Promise<Proxy>, prove: (proxy: Proxy) => Promise<void>): Promise<void> {
    const proxy = await starting
    try {
      await prove(proxy)
    } finally {
      await proxy.stop()
    }
  }

  const NGINX_OPEN = [
    ['# proxy_intercept_errors on;', 'proxy_intercept_errors on;'],
    ['# error_page 502 503 504 = @unasked;', 'error_page 502 503 504 = @unasked;'],
    ['# location @unasked', 'location @unasked'],
  ] as const
  test('nginx asks, refuses with 429, and takes no forged field', async (t) => {
    if (noNginx !== undefined) return t.diagnostic(noNginx)
    await withProxy(startNginx(block('nginx')), prove)
  })
  test('nginx lets nobody pass while Sluice is gone', async (t) => {
    if (noNginx !== undefined) return t.diagnostic(noNginx)
    await withProxy(startNginx(block('nginx')), (proxy) => proveGone(proxy, false))
  })
  test('nginx lets everybody pass while Sluice is gone where it is told to, and is as strict as ever while it is there', async (t) => {
    if (noNginx !== undefined) return t.diagnostic(noNginx)
    const open = openly(block('nginx'), NGINX_OPEN)
    await withProxy(startNginx(open), async (proxy) => {
      const poor = await world.account('poor', '0.5')
      assert.equal((await send(proxy, 'GET', '/v1/a', poor)).status, 429)
      await proveGone(proxy, true)
    })
  })

  test('Caddy asks, passes refusals on, and takes no forged field', async (t) => {
    if (noCaddy !== undefined) return t.diagnostic(noCaddy)
    await withProxy(startCaddy(block('caddyfile')), prove)
  })
  test('Caddy lets nobody pass while Sluice is gone', async (t) => {
    if (noCaddy !== undefined) return t.diagnostic(noCaddy)
    await withProxy(startCaddy(block('caddyfile')), (proxy) => proveGone(proxy, false))
  })
  test('Caddy lets everybody pass while Sluice is gone where it is told to', async (t) => {
    if (noCaddy !== undefined) return t.diagnostic(noCaddy)
    const open = openly(block('caddyfile'), [['respond @gone 503', 'reverse_proxy @gone 127.0.0.1:3000']])
    await withProxy(startCaddy(open), (proxy) => proveGone(proxy, true))
  })

  test("Envoy's configuration asks at the gateway's port, and by the names that the gateway's has", () => {
    const own = parse(OWN)
    const envoy = parse(block('yaml', 1))
    const rate = parse(block('yaml', 2))
    const { clusters } = envoy.static_resources
    const { endpoint } = clusters[0].load_assignment.endpoints[0].lb_endpoints[0]
    assert.equal(endpoint.address.socket_address.port_value, own.grpc.port)
    const [authz] = envoy.static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters
    const [limit] = rate.http_filters
    const asked = [authz.typed_config.grpc_service, limit.typed_config.rate_limit_service.grpc_service]
    for (const { envoy_grpc } of asked) assert.equal(envoy_grpc.cluster_name, clusters[0].name)
    const [rule] = own.rate_limit.rules
    assert.equal(limit.typed_config.domain, rule.domain)
    const keys = rate.route.rate_limits[0].actions.map(
      (action: { request_headers: { descriptor_key: string } }) => action.request_headers.descriptor_key,
    )
    assert.deepEqual(keys, [rule.account, rule.subject.user])
  })
})
