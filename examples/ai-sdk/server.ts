import { openai } from '@ai-sdk/openai'
import { serve } from '@hono/node-server'
import { AccessRefused, createClient } from '@sluice/client'
import { sluice } from '@sluice/client/ai'
import { refusalResponse } from '@sluice/client/web'
import { generateText, jsonSchema, stepCountIs, streamText, tool, wrapLanguageModel } from 'ai'
import { Hono } from 'hono'

const client = createClient({
  url: process.env.SLUICE_URL ?? 'http://127.0.0.1:8787',
  key: process.env.SLUICE_KEY ?? '',
})

/** The model, at the expense of an account. */
const modelFor = (account: string) =>
  wrapLanguageModel({
    model: openai('gpt-5.4-mini'),
    middleware: sluice({
      client,
      request: ({ modelId }) => ({ account, feature: 'chat', attributes: { model: modelId } }),
    }),
  })

const weather = tool({
  description: 'What the weather is like in a city',
  inputSchema: jsonSchema<{ city: string }>({
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
  }),
  execute: async ({ city }) => `It is raining in ${city}.`,
})

const app = new Hono()

// Whole, with a tool: each call of the model is asked for and charged for itself.
app.post('/ask', async (c) => {
  const { text } = await generateText({
    model: modelFor(c.req.header('x-account') ?? 'guest'), // your own sign-in knows whom it is for
    prompt: await c.req.text(),
    tools: { weather },
    stopWhen: stepCountIs(5),
  })
  return c.text(text)
})

app.onError((error) => {
  if (error instanceof AccessRefused) return refusalResponse(error.refusal)
  console.error(error)
  return new Response('it failed', { status: 500 })
})

// Streamed: the response has begun when the model is asked, so a refusal is a part of the stream.
app.post('/chat', async (c) => {
  const result = streamText({
    model: modelFor(c.req.header('x-account') ?? 'guest'),
    prompt: await c.req.text(),
    maxOutputTokens: 500,
    abortSignal: c.req.raw.signal,
    onError({ error }) {
      if (!(error instanceof AccessRefused)) console.error(error)
    },
  })
  return result.toUIMessageStreamResponse({
    onError: (error) => (error instanceof AccessRefused ? error.refusal.reason : 'it failed'),
  })
})

serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 3000) })
