# A stdio server in a dozen lines. $1: how it meets server/discover
# (error, exit, silent, modern). Tools: pid, die, ask, slow, noise.
while IFS= read -r line; do
  id=$(printf '%s\n' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  reply() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
  case "$line" in
    *'"method":"server/discover"'*)
      case "$1" in
        exit) exit 3 ;;
        silent) ;;
        modern) reply '"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true}},"ttlMs":60000,"cacheScope":"public"}' ;;
        *) reply '"error":{"code":-32601,"message":"Method not found"}' ;;
      esac ;;
    *'"method":"initialize"'*)
      echo "starting up" >&2
      echo "this line is not JSON"
      reply '"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"child","version":"1"}}' ;;
    *'"method":"subscriptions/listen"'*)
      printf '{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":%s}}}\n' "$id"
      printf '{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":%s}}}\n' "$id" ;;
    *'"name":"die"'*) exit 1 ;;
    *'"name":"slow"'*)
      token=$(printf '%s\n' "$line" | sed -n 's/.*"progressToken":\([^,}]*\).*/\1/p')
      [ -z "$token" ] || printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}\n' "$token" ;;
    *'"name":"cancelled"'*) reply "\"result\":{\"cancelled\":\"$cancelled\"}" ;;
    *'"method":"notifications/cancelled"'*) cancelled=$(printf '%s\n' "$line" | sed -n 's/.*"requestId":\([0-9]*\).*/\1/p') ;;
    *'"name":"ask"'*)
      call=$id
      printf '{"jsonrpc":"2.0","id":"q%s","method":"elicitation/create","params":{"message":"?","requestedSchema":{}}}\n' "$id" ;;
    *'"id":"q'*)
      answer=$(printf '%s\n' "$line" | sed -n 's/.*"action":"\([a-z]*\)".*/\1/p')
      id=$call
      reply "\"result\":{\"answer\":\"$answer\"}" ;;
    *'"name":"stray"'*)
      printf '{"jsonrpc":"2.0","id":"stray","method":"elicitation/create","params":{"message":"?"}}\n'
      IFS= read -r refusal
      code=$(printf '%s\n' "$refusal" | sed -n 's/.*"code":\(-[0-9]*\).*/\1/p')
      reply "\"result\":{\"refused\":$code}" ;;
    *'"method":"tools/call"'*)
      reply "\"result\":{\"pid\":$$,\"lines\":\"ok\",\"home\":\"$HOME\",\"secret\":\"$MCP_FLEET_TEST_SECRET\"}" ;;
    *'"method":"notifications/'*) ;;
    *) reply '"result":{"tools":[]}' ;;
  esac
done
