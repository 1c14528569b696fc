// qlora chat.
#pragma once

namespace CLI {
class App;
}

void add_chat_command(CLI::App& app);
