import { createClient } from '@sluice/client'
import { guarded, leaseOf } from '@sluice/client/web'
import type { NextRequest } from 'next/server'

const client = createClient({
  url: process.env.SLUICE_URL ?? 'http://127.0.0.1:8787',
  key: process.env.SLUICE_KEY ?? '',
})

export const POST = guarded(
  {
    client,
    request: async ({ request }) => ({
      account: request.headers.get('x-account') ?? 'guest', // your own sign-in knows whom it is for
      feature: 'chat',
      // A clone, since the handler reads the body itself.
      estimate: { input_tokens: (await request.clone().text()).length, output_tokens: 50 },
    }),
  },
  async (request: NextRequest) => {
    const prompt = await request.text()
    const lease = leaseOf(request)
    let tokens = 0
    async function* answer(): AsyncGenerator<string> {
      for await (const word of model(prompt)) {
        yield word
        if (lease?.report({ input_tokens: prompt.length, output_tokens: ++tokens }) === false) return
      }
    }
    const body = ReadableStream.from(answer()).pipeThrough(new TextEncoderStream())
    return new Response(body, { headers: { 'content-type': 'text/plain; charset=utf-8' } })
  },
)

/** Stands for your model: it says what it was told, a token at a time. */
async function* model(prompt: string): AsyncGenerator<string> {
  for (const word of prompt.split(' ')) yield `${word} `
}
