import assert from 'node:assert/strict'
import { createServer, type IncomingMessage, type Server, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
// The adapter that Hono and web handlers have on Node; it cancels the body of a response that is left.
import { getRequestListener } from '@hono/node-server'
import express from 'express'
import Fastify from 'fastify'
import { Hono } from 'hono'
import { NextRequest, NextResponse } from 'next/server.js'
import { openScene, type Scene } from '../test/client.ts'
import * as forExpress from './express.ts'
import * as forFastify from './fastify.ts'
import type { GuardOptions } from './guard.ts'
import { sluice as forHono } from './hono.ts'
import type { Client, Lease } from './index.ts'
import { guarded, leaseOf } from './web.ts'

/** What a handler does: five words, one by one, as `?account` and `?do` say. */
async function* words(todo: string | null, lease: Lease | undefined): AsyncGenerator<string> {
  for (let count = 1; count <= 5; count++) {
    await pause(20)
    if (lease?.signal.aborted) return
    lease?.report({ words: count })
    yield `word${count} `
    if (todo === 'hang' && count === 2)
      await pause(60_000, undefined, { signal: lease?.signal as AbortSignal })
  }
}

const FAILURE = 'the handler failed'

interface Running {
  readonly url: string
  close(): Promise<void>
}
type Common = Pick<GuardOptions<unknown>, 'client'>
const needs = (url: string) => {
  const account = new URL(url, 'http://x').searchParams.get('account')
  return account === null ? undefined : { account, feature: 'write', estimate: { words: 10 } }
}
const todoOf = (url: string) => new URL(url, 'http://x').searchParams.get('do')

async function listen(server: Server): Promise<Running> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function streamOf(todo: string | null, lease: Lease | undefined): Response {
  if (todo === 'fail') throw new Error(FAILURE)
  return new Response(ReadableStream.from(words(todo, lease)).pipeThrough(new TextEncoderStream()))
}

const FRAMEWORKS: Readonly<Record<string, (common: Common) => Promise<Running>>> = {
  express(common) {
    const app = express()
    app.use(
      forExpress.sluice({ ...common, request: (request: IncomingMessage) => needs(String(request.url)) }),
    )
    app.get('/write', async (request, response) => {
      if (todoOf(request.url) === 'fail') throw new Error(FAILURE)
      for await (const word of words(todoOf(request.url), forExpress.leaseOf(request))) response.write(word)
      response.end()
    })
    app.use(((_error, _request, response, _next) => {
      if (!response.headersSent) response.status(500)
      response.end()
    }) satisfies express.ErrorRequestHandler)
    return listen(createServer(app))
  },
  async fastify(common) {
    const app = Fastify()
    app.addHook(
      'preHandler',
      forFastify.sluice({ ...common, request: ({ url }: { url: string }) => needs(url) }),
    )
    app.get('/write', (request) => streamOf(todoOf(request.url), forFastify.leaseOf(request)))
    await app.listen({ host: '127.0.0.1', port: 0 })
    const { port } = app.server.address() as AddressInfo
    return {
      url: `http://127.0.0.1:${port}`,
      close: async () => {
        app.server.closeAllConnections()
        await app.close()
      },
    }
  },
  hono(common) {
    const app = new Hono<{ Variables: { lease: Lease } }>()
    app.onError((_error, context) => context.text('', 500))
    app.use('*', forHono({ ...common, request: ({ req }) => needs(req.raw.url) }))
    app.get('/write', (context) => streamOf(todoOf(context.req.url), context.get('lease')))
    return listen(createServer(getRequestListener(app.fetch)))
  },
  web(common) {
    const handler = guarded({ ...common, request: ({ request }) => needs(request.url) }, (request) =>
      streamOf(todoOf(request.url), leaseOf(request)),
    )
    return listen(createServer(getRequestListener((request) => handler(request))))
  },
  next(common) {
    const handler = guarded(
      { ...common, request: async ({ rest: [{ params }] }) => needs((await params).query) },
      async (request: NextRequest, context: { readonly params: Promise<{ readonly query: string }> }) => {
        assert.equal((await context.params).query, request.nextUrl.search)
        const todo = request.nextUrl.searchParams.get('do')
        const { body } = streamOf(todo, leaseOf(request))
        const response = new NextResponse(body)
        response.cookies.set('a', '1')
        response.cookies.set('b', '2')
        return response
      },
    )
    return listen(
      createServer(
        getRequestListener((request) =>
          handler(new NextRequest(request.url, { signal: request.signal }), {
            params: Promise.resolve({ query: new URL(request.url).search }),
          }),
        ),
      ),
    )
  },
}

for (const [name, start] of Object.entries(FRAMEWORKS)) {
  describe(`a guarded ${name} handler`, { timeout: 60_000 }, () => {
    let scene: Scene
    let app: Running & { readonly client: Client }
    before(async () => {
      scene = await openScene()
      const client = scene.client()
      app = { ...(await start({ client })), client }
    })
    after(async () => {
      await app.close()
      await scene.close()
    })
    const ask = (query: string) => fetch(`${app.url}/write?${query}`)
    const credits = async (account: string) => (await scene.client().account(account)).credits
    /** A response that was left is known to be so a little later. */
    async function eventually(account: string, available: string): Promise<void> {
      for (let tries = 0; tries < 100; tries++) {
        const now = await credits(account)
        if (now.available === available && now.held === '0') return
        await pause(20)
      }
      const { available: seen, held } = await credits(account)
      assert.deepEqual({ available: seen, held }, { available, held: '0' })
    }

    test('is metered until its response has ended, and tells the limits', async () => {
      await scene.account('good', '100', 'steady')
      const response = await ask('account=good')
      assert.equal(response.status, 200)
      assert.match(String(response.headers.get('ratelimit')), /"purchased";r=90000000/)
      assert.equal(await response.text(), 'word1 word2 word3 word4 word5 ')
      if (name === 'next') assert.equal(response.headers.getSetCookie().length, 2)
      await eventually('good', '95')
    })

    test('is not reached by who may not, who is told why in a form that clients know', async () => {
      await scene.account('poor', '5', 'steady')
      const response = await ask('account=poor&do=fail')
      assert.equal(response.status, 429)
      assert.match(String(response.headers.get('content-type')), /application\/problem\+json/)
      assert.match(String(response.headers.get('ratelimit')), /"purchased";r=5000000/)
      const { code, outcome, unblock, request_id } = (await response.json()) as Record<string, unknown>
      assert.deepEqual(
        { code, outcome, unblock },
        {
          code: 'credits_short',
          outcome: 'deny',
          unblock: { credits: '5', at_most: '5' },
        },
      )
      const { refusals } = await scene.client().explain('poor', String(request_id))
      assert.equal(refusals[0]?.reason, 'credits_short')
    })

    test('that fails is not charged', async () => {
      await scene.account('fails', '100', 'steady')
      assert.equal((await ask('account=fails&do=fail')).status, 500)
      await eventually('fails', '100')
    })

    test('that nobody waits for any more stops, and is charged for what it did', async () => {
      await scene.account('leaves', '100', 'steady')
      await new Promise<void>((resolve) => {
        const asked = send(`${app.url}/write?account=leaves&do=hang`, (response) => {
          let text = ''
          response.on('error', () => {})
          response.on('data', (piece) => {
            text += piece
            if (!text.includes('word2')) return
            asked.destroy()
            resolve()
          })
        })
        asked.on('error', () => {})
        asked.end()
      })
      await eventually('leaves', '98')
    })

    test('ends where its head alone is asked for', async () => {
      await scene.account('head', '100', 'steady')
      const response = await fetch(`${app.url}/write?account=head`, { method: 'HEAD' })
      // Fastify itself fails at a standard response without its body.
      assert.equal(response.status, name === 'fastify' ? 500 : 200)
      for (let tries = 0; tries < 100 && app.client.running > 0; tries++) await pause(20)
      assert.equal(app.client.running, 0)
      assert.equal((await credits('head')).held, '0')
    })

    test('holds nothing for who left while Sluice was asked', async () => {
      await scene.account('impatient', '100', 'steady')
      scene.server.process.kill('SIGSTOP')
      const asked = send(`${app.url}/write?account=impatient&do=hang`)
      asked.on('error', () => {})
      asked.end()
      await pause(200)
      asked.destroy()
      await pause(50)
      scene.server.process.kill('SIGCONT')
      await eventually('impatient', '100')
      assert.equal(app.client.running, 0)
    })

    test('passes unmetered where it is said so', async () => {
      const response = await ask('')
      assert.equal(response.headers.get('ratelimit'), null)
      assert.match(await response.text(), /word5/)
    })

    test('answers 503 when its client has been closed', async () => {
      const client = scene.client()
      const closed = await start({ client })
      await client.close()
      const response = await fetch(`${closed.url}/write?account=good`)
      assert.equal(response.status, 503)
      assert.equal(((await response.json()) as { code: string }).code, 'closing')
      await closed.close()
    })

    test('answers 503 while nobody can decide', async () => {
      await scene.kill()
      const response = await ask('account=good')
      assert.equal(response.status, 503)
      assert.equal(((await response.json()) as { code: string }).code, 'unavailable')
    })
  })
}

test('a use that cannot be told is charged as estimated, and somebody is told why', async () => {
  const scene = await openScene()
  await scene.account('untold', '100', 'steady')
  const client = scene.client()
  const errors: unknown[] = []
  const wrong = [
    () => {
      throw new Error('no use')
    },
    () => ({ words: Number.NaN }),
  ]
  for (const usage of wrong) {
    const handler = guarded(
      { client, request: () => needs('/?account=untold'), usage, onError: (error) => errors.push(error) },
      () => new Response('text'),
    )
    assert.equal(await (await handler(new Request('http://x/'))).text(), 'text')
  }
  assert.match(String(errors), /no use,RangeError: NaN/)
  const { available, held } = (await client.account('untold')).credits
  assert.deepEqual({ available, held }, { available: '80', held: '0' })
  await scene.close()
})
