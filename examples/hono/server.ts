import { serve } from '@hono/node-server'
import { createClient, type Lease } from '@sluice/client'
import { sluice } from '@sluice/client/hono'
import { type Context, Hono } from 'hono'
import { streamText } from 'hono/streaming'

const client = createClient({
  url: process.env.SLUICE_URL ?? 'http://127.0.0.1:8787',
  key: process.env.SLUICE_KEY ?? '',
})

const app = new Hono<{ Variables: { lease: Lease } }>()

app.post(
  '/chat',
  sluice({
    client,
    request: async (c: Context) => ({
      account: c.req.header('x-account') ?? 'guest', // your own sign-in knows whom it is for
      feature: 'chat',
      estimate: { input_tokens: (await c.req.text()).length, output_tokens: 50 },
    }),
  }),
  async (c) => {
    const prompt = await c.req.text()
    const lease = c.get('lease')
    let tokens = 0
    return streamText(c, async (stream) => {
      for await (const word of model(prompt)) {
        await stream.write(word)
        if (!lease.report({ input_tokens: prompt.length, output_tokens: ++tokens })) break
      }
    })
  },
)

serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 3000) })

/** Stands for your model: it says what it was told, a token at a time. */
async function* model(prompt: string): AsyncGenerator<string> {
  for (const word of prompt.split(' ')) yield `${word} `
}
