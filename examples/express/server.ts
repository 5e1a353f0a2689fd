import { createClient } from '@sluice/client'
import { leaseOf, sluice } from '@sluice/client/express'
import { closeOnSignals } from '@sluice/client/node'
import express from 'express'

const client = createClient({
  url: process.env.SLUICE_URL ?? 'http://127.0.0.1:8787',
  key: process.env.SLUICE_KEY ?? '',
  onUnavailable: { mode: 'bounded', perAccount: '0.5' },
})
closeOnSignals(client)

const app = express()
app.use(express.text())

app.post(
  '/chat',
  sluice({
    client,
    request: (request: express.Request) => ({
      account: request.get('x-account') ?? 'guest', // your own sign-in knows whom it is for
      feature: 'chat',
      estimate: { input_tokens: String(request.body).length, output_tokens: 50 },
    }),
  }),
  async (request, response) => {
    const prompt = String(request.body)
    const lease = leaseOf(request)
    let tokens = 0
    response.type('text')
    for await (const word of model(prompt)) {
      response.write(word)
      if (lease?.report({ input_tokens: prompt.length, output_tokens: ++tokens }) === false) break
    }
    response.end()
  },
)

app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1')

/** Stands for your model: it says what it was told, a token at a time. */
async function* model(prompt: string): AsyncGenerator<string> {
  for (const word of prompt.split(' ')) yield `${word} `
}
