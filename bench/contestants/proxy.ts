/** A bare proxy: bytes there and back through `node:http`, and nothing else. */
import { Agent, createServer, request as send } from 'node:http'
import { perform } from '../contestant.ts'
import { control } from '../control.ts'

await perform(async ({ port, to, controlPort }) => {
  const agent = new Agent({ keepAlive: true })
  const server = createServer((request, response) => {
    const { method = 'GET', url = '/', headers } = request
    const onward = send(
      { agent, host: '127.0.0.1', port: Number(to), method, path: url, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(response)
      },
    )
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((resolve) => server.listen(Number(port), '127.0.0.1', resolve))
  const questions = await control(Number(controlPort), { books: async () => ({}) })
  return {
    run: async () => ({}),
    async close() {
      server.closeAllConnections()
      server.close()
      agent.destroy()
      questions.close()
    },
  }
})
