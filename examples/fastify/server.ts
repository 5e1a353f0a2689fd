import { Readable } from 'node:stream'
import { createClient, type Lease } from '@sluice/client'
import { leaseOf, sluice } from '@sluice/client/fastify'
import Fastify from 'fastify'

const client = createClient({
  url: process.env.SLUICE_URL ?? 'http://127.0.0.1:8787',
  key: process.env.SLUICE_KEY ?? '',
})

const app = Fastify()
app.addHook('onClose', async () => void (await client.close()))

app.post<{ Body: string }>(
  '/chat',
  {
    preHandler: sluice({
      client,
      request: (request) => ({
        account: String(request.headers['x-account'] ?? 'guest'), // your own sign-in knows whom it is for
        feature: 'chat',
        estimate: { input_tokens: request.body.length, output_tokens: 50 },
      }),
    }),
  },
  async (request, reply) =>
    reply.type('text/plain').send(Readable.from(answer(request.body, leaseOf(request)))),
)

await app.listen({ port: Number(process.env.PORT ?? 3000) })

async function* answer(prompt: string, lease: Lease | undefined): AsyncGenerator<string> {
  let tokens = 0
  for await (const word of model(prompt)) {
    yield word
    if (lease?.report({ input_tokens: prompt.length, output_tokens: ++tokens }) === false) return
  }
}

/** Stands for your model: it says what it was told, a token at a time. */
async function* model(prompt: string): AsyncGenerator<string> {
  for (const word of prompt.split(' ')) yield `${word} `
}
